"""The command line, `python -m miue_lib`: craft noise, train a victim on it, measure what the victim still learns;
or protect a folder of pictures, all in one.

Results go to stdout; progress, warnings and errors to stderr; and the exit code says how it ended (see `main`).
What is wrong with files and names is said before the first picture is read.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import shlex
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from . import evaluate
from ._console import Progress, Terminated, one_line_warnings, sigterm_raises, visible
from ._errors import bad, check_count, check_number
from ._options import parser, settings_of
from .cache import Cache
from .data import ImageSet, default_device, load
from .evaluate import Bench
from .mi import mutual_information
from .models import begin_with, build, load_model, save_model
from .noise import METHODS, craft
from .noise.execution import of_rank
from .perturbation import Perturbation
from .photos import plan, protect
from .photos.request import MANIFEST, REPORT
from .photos.work import in_words
from .profiles import Profile, profile
from .suite import TABLES, fitted_to, pretrained, suite
from .train import History, accuracy, features, fit
from .visibility import WINDOW, visibility

Asked = argparse.Namespace
T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: done. 1: it failed at work (`FloatingPointError`, `OSError`, `RuntimeError`, `MemoryError`). 2: `ValueError`, an
    unusable input (what the parser itself refuses raises `SystemExit(2)`). 3: `evaluate` has stopped in time, with runs
    left. 130 and 143: SIGINT and SIGTERM, as shells count them. Any other exception is a bug, and is not caught.
    """
    asked = parser().parse_args(arguments)
    commands: dict[str, Callable[[Asked], int | None]] = {
        "craft": craft_command,
        "train": train_command,
        "mi": mi_command,
        "evaluate": evaluate_command,
        "protect": protect_command,
    }
    run = commands[asked.command]
    # A rank that has nothing to tidy ends at once, even inside a collective, where no Python handler would run.
    with one_line_warnings(), sigterm_raises() if _writes() else nullcontext():
        try:
            code = run(asked)
        except ValueError as error:
            return _complain(asked, error, 2)
        except (FloatingPointError, OSError, RuntimeError, MemoryError) as error:
            return _complain(asked, error, 1)
        except KeyboardInterrupt:
            return _complain(asked, "interrupted", 130)
        except Terminated:
            return _complain(asked, "terminated", 143)
    return code or 0


def _complain(asked: Asked, error: BaseException | str, code: int) -> int:
    if asked.traceback:
        traceback.print_exc()
    print(f"miue_lib: error: {visible(' '.join(str(error).split())) or type(error).__name__}", file=sys.stderr)
    return code


# The commands


def craft_command(asked: Asked) -> None:
    """Noise for the training pictures into a file; under torchrun its processes share the work."""
    method = METHODS[asked.method]
    size = _profile(asked)
    settings = _settings(method.run, size.noise[asked.method], asked.set)
    if method.takes("epsilon"):
        settings["epsilon"] = 8 / 255 if asked.epsilon is None else asked.epsilon
    elif asked.epsilon is not None:
        raise bad("--epsilon", f"{asked.epsilon:g}", f"none: {asked.method} is not bounded by how far a pixel moves")
    # A method without rounds has nothing to go on from: it is told of no files, whatever was asked for, so that one
    # command line serves all methods.
    has_rounds = method.takes("execution")
    writes = _writes()
    if writes:
        _check_target("--out", asked.out, asked.force)
    files = _files(asked) if has_rounds else {}
    # Under torchrun each process keeps its own part of these.
    rank = int(os.environ.get("RANK", "0"))
    own = {name: of_rank(files[name], rank, _processes()) for name in ("checkpoint", "delta_file") if name in files}
    for name, path in own.items():
        _check_target(f"--{name.replace('_', '-')}", path, asked.resume or asked.force, "--resume to go on from it")
    with _process(asked.device) as device, closing(Progress()) as progress:
        train, _ = _one_before_the_others(lambda: _load(asked, device))
        if writes and (has_rounds or method.takes("progress")):
            files["progress"] = progress
        if asked.force and not asked.resume:
            _remove(own.values())
        try:
            noise = craft(asked.method, train, seed=asked.seed, **settings, **files)
            if writes:
                noise.save(asked.out)
        except BaseException as error:
            # A ValueError may be about the checkpoint itself.
            if writes and "checkpoint" in own and own["checkpoint"].exists() and not isinstance(error, ValueError):
                progress.close()
                print(f"miue_lib: {files['checkpoint']} is kept: --resume goes on from there", file=sys.stderr)
            raise
        if writes:
            progress.close()
            _report(_about(noise, train) | {"noise": asked.out, "next": _next_command(asked)})
        if distributed.is_initialized():
            distributed.barrier()  # until the noise is written, all of this is needed
        _remove([*own.values(), *(files[name] for name in ("delta_file",) if name in files)])


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".new").unlink(missing_ok=True)  # of a checkpoint that was not finished


def train_command(asked: Asked) -> None:
    """A victim on clean pictures, or on published ones, and its accuracy."""
    _refuse_several_processes("train")
    noise = None if asked.noise is None else Perturbation.load(asked.noise)
    if asked.out is not None:
        _check_target("--out", asked.out, asked.force)
    size = _profile(asked)
    settings = _settings(fit, size.victim, asked.set)
    if asked.epochs is not None:
        settings["epochs"] = asked.epochs
    epochs = settings["epochs"]
    device = _chosen(asked.device)
    clean, test = _load(asked, device)
    train = clean if noise is None else clean.with_(noise)
    victim = build(asked.model or size.model, train, seed=asked.seed)
    with closing(Progress()) as progress:

        def on_epoch(epoch: int, history: History) -> None:
            seconds = history.seconds[-1]
            progress(
                f"epoch {epoch}/{epochs}: loss {history.loss[-1]:.3f}, accuracy {history.train_accuracy[-1]:.3f}, "
                f"{seconds:.0f} s, about {seconds / epoch * (epochs - epoch):.0f} s to go"
            )

        fit(victim, train, seed=asked.seed, on_epoch=on_epoch, **settings)
    rows = {
        "victim": f"{victim.architecture}, {epochs} epochs on {train.name}, seed {asked.seed}",
        "test": f"{_accuracy(victim, test)} clean test pictures",
        "train": f"{_accuracy(victim, train)} of those it was trained on, without crop and flip",
        "±": "one binomial standard error",
    }
    if asked.out is not None:
        save_model(victim, asked.out)
        rows["weights"] = str(asked.out)
    _report(rows)


def mi_command(asked: Asked) -> None:
    """I(g(x); g(x')) between a victim's features of clean and of published pictures."""
    _refuse_several_processes("mi")
    check_count("--slices", asked.slices, 0)
    noise = Perturbation.load(asked.noise)
    device = _chosen(asked.device)
    victim = load_model(asked.victim, device=device)
    clean = _load(asked, device)[0 if asked.on == "train" else 1]
    published = clean.with_(noise)
    shape = tuple(clean.images.shape[1:])
    if victim.picture_shape != shape:
        raise bad("--victim", f"a model for pictures of {_by(victim.picture_shape)}", f"one for {_by(shape)}")
    g, h = features(victim, clean), features(victim, published)
    found = mutual_information(g, h, estimator=asked.estimator, slices=asked.slices or None, seed=asked.seed)
    how = f"the mean of {asked.slices} slices" if asked.slices else "of the feature vectors"
    _report(
        {
            "I(g(x); g(x'))": f"{found.value:.4f} ± {found.stderr:.4f} nats",
            "shuffled": f"{found.baseline:.4f} ± {found.baseline_stderr:.4f} nats: as it reads where there is none",
            "ceiling": f"{found.ceiling:.4f} nats: the most that it can read",
            "estimator": f"{asked.estimator}, {how}; {found.n:,} pairs, {g.shape[1]} features each",
            "±": f"one standard error over {'slices' if asked.slices else 'pairs'}",
        }
    )


def evaluate_command(asked: Asked) -> int:
    """The suite's tables, recorded case by case."""
    begun = time.perf_counter()
    _refuse_several_processes("evaluate")
    minutes = asked.minutes if asked.minutes is None else check_number("--minutes", asked.minutes, 0)
    if asked.name is not None and not asked.name.strip():
        raise bad("--name", repr(asked.name), "what a reader is to see")
    cache = Cache(asked.work or Path.home() / ".cache" / "miue_lib" / "evaluate")
    for option, folder in (("--out", asked.out), ("--work", cache.folder)):
        _check_folder(option, folder)
    device = _chosen(asked.device)
    start = None if asked.pretrained is None else load_model(asked.pretrained, device=device)
    train, test = _load(asked, device)
    size = fitted_to(_profile(asked), train)
    if size.few < len(train):
        train = train.balanced(size.few)
    bench = Bench(
        size=size, train=train, test=test, cache=cache, data=_named(asked, train), seed=asked.seed, start=start
    )
    tables = suite(size, train)
    cases = [case for table in asked.tables or TABLES for case in tables[table]]
    if start is not None:
        begin_with(build(start.architecture, train), start)  # refused now rather than after all other cases
        cases += pretrained(size, start)
    if minutes is not None:
        minutes = max(0.0, minutes - (time.perf_counter() - begun) / 60)
    with closing(Progress()) as progress:

        def tell(line: str) -> None:
            progress.close()
            print(line, flush=True)

        left = evaluate.run(cases, bench, asked.out, minutes=0 if asked.list else minutes, tell=tell, say=progress)
    if asked.list:
        for case in cases:
            print(f"{case.table}, {case.row}, {case.column}")
    runs = len(cases) * size.seeds
    rows = {"recorded": f"{runs - left} of {runs} runs of {len(cases)} cases, in {asked.out}"}
    if left:
        rows["left"] = f"{left} runs: the same command goes on with them"
    _report(rows)
    return 3 if left and not asked.list else 0


def protect_command(asked: Asked) -> None:
    """A folder of pictures, published with noise, and a report; with --dry-run, what that would be."""
    names = ("method", "budget", "size", "profile", "seed", "seeds", "webp", "keep_metadata")
    arguments: dict[str, Any] = {name: getattr(asked, name) for name in names}
    arguments |= {"report": not asked.no_report, "settings": dict(asked.set)}
    _settings(METHODS[asked.method].run, {}, asked.set)
    if asked.dry_run:
        _refuse_several_processes("protect --dry-run")
        _report(_about_plan(plan(asked.photos, asked.out, device=_chosen(asked.device), **arguments)))
        return
    with _process(asked.device) as device, closing(Progress()) as progress:
        made = protect(asked.photos, asked.out, device=device, progress=progress, **arguments)
        if _writes():
            progress.close()
            _report(_about_protected(made, asked.out))


def _about_plan(found: Mapping[str, Any]) -> dict[str, object]:
    """What --dry-run says."""
    goes_on = f", {found['published']:,} pictures are published" if found["state"] == "begun" else ""
    rows: dict[str, object] = {"output": f"{found['state']}{goes_on}"}
    rows["pictures"] = f"{found['pictures']:,} in {len(found['classes'])} classes, by their names"
    rows |= {f"class {name}": f"{count:,}" for name, count in found["classes"].items()}
    left_out = found["left_out"] + found["unreadable"]
    rows["left out"] = f"{len(left_out):,}; {found['opened']:,} files were looked into"
    rows |= {f"left out: {left['source']}": left["reason"] for left in left_out[:20]}
    if len(left_out) > 20:
        rows["left out: …"] = f"{len(left_out) - 20:,} more"
    rows["size"] = f"about {found['bytes'] / 1e6:,.1f} MB, of {found['pixels'] / 1e6:,.1f} million pixels"
    seconds = found["seconds"]
    known = [value for value in seconds.values() if value is not None]
    rows["time"] = f"about {in_words(sum(known))}" + ("" if len(known) == len(seconds) else " and what is not known")
    for name, value in seconds.items():
        rows[f"time, {name}"] = "not known beforehand, of this method" if value is None else in_words(value)
    rows["memory"] = f"about {found['memory'] / 1e9:.1f} GB"
    return rows


def _about_protected(made: Mapping[str, Any], out: Path) -> dict[str, object]:
    summary, settings = made["summary"], made["settings"]
    rows: dict[str, object] = {"pictures": f"{summary['pictures']:,} in {len(made['classes'])} classes"}
    rows["left out"] = f"{summary['left_out']:,}" + (", why is in the manifest" if summary["left_out"] else "")
    rows["method"] = settings["title"]
    budget = "" if settings["budget"] is None else f", at most {settings['budget']}"
    rows["L∞"] = f"{summary['linf']} of 255 levels{budget}; every file was read back"
    if summary["psnr"] is not None:
        rows["PSNR"] = f"{summary['psnr']:.1f} dB"
    if summary["ssim"] is not None:
        rows["SSIM"] = f"{summary['ssim']:.4f}"
    sentences = made["verdict"]["sentences"] if made["verdict"] else []
    rows |= {f"verdict {number}": sentence for number, sentence in enumerate(sentences, 1)}
    rows["manifest"] = out / MANIFEST
    if made["verdict"]:
        rows["report"] = out / REPORT
        rows["private"] = f"{REPORT} shows some pictures as they were, unprotected: do not publish it with the others"
    return rows


def _named(asked: Asked, train: ImageSet) -> str:
    """What records call the pictures."""
    if asked.name is not None:
        return str(asked.name)
    name = Path(asked.data.removeprefix("folder:")).name or asked.data
    return f"{name}, {len(train):,} pictures of {_by(train.images.shape[1:])}"


def _check_folder(option: str, path: Path) -> None:
    """Raise `ValueError` unless files can be written into the folder `path`, or one can be made there."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise bad(option, repr(str(path)), "a folder, or a path where one can be made")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise bad(option, f"{str(path)!r} ({error})", "a folder that can be written into") from error


# What is asked for


def _profile(asked: Asked) -> Profile:
    return profile(asked.profile or ("gpu" if (asked.device or default_device()).type == "cuda" else "cpu"))


def _settings(function: Callable[..., Any], base: Mapping[str, Any], given: list[tuple[str, Any]]) -> dict[str, Any]:
    """The function's defaults, over them the profile's settings, over them those of --set."""
    known = settings_of(function)
    for name, _ in given:
        if name not in known:
            expected = "one of " + ", ".join(known) if known else f"none: {function.__name__} has no such settings"
            raise bad("--set", repr(name), expected)
    return {**known, **base, **dict(given)}


def _files(asked: Asked) -> dict[str, Any]:
    """What `craft` is told about files of work in progress."""
    files: dict[str, Any] = {}
    if not asked.no_checkpoint:
        files["checkpoint"] = asked.checkpoint or asked.out.with_suffix(".checkpoint")
        files |= {"checkpoint_minutes": asked.checkpoint_minutes, "resume": asked.resume}
    elif asked.resume:
        raise bad("--resume", "--no-checkpoint with it", "one of the two")
    if asked.delta_file is not None:
        files["delta_file"] = asked.delta_file
    paths = [asked.out, *(files[name] for name in ("checkpoint", "delta_file") if name in files)]
    if len({path.resolve() for path in paths}) < len(paths):
        raise bad("--out, --checkpoint, --delta-file", ", ".join(map(str, paths)), "a file of its own for each")
    return files


def _check_target(option: str, path: Path, force: bool, otherwise: str = "another name") -> None:
    """Raise `ValueError` unless a file can be written at `path`: hours later would be too late to find out."""
    if not path.parent.is_dir() or path.is_dir():
        raise bad(option, repr(str(path)), "a file in a folder that exists")
    if path.exists() and not force:
        raise bad(option, f"{str(path)!r}, which exists", f"{otherwise}, or --force to write over it")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise bad(option, f"{str(path)!r} ({error})", "a file in a folder that can be written into") from error


def _load(asked: Asked, device: torch.device) -> tuple[ImageSet, ImageSet]:
    options = {name: getattr(asked, name) for name in ("size", "root") if getattr(asked, name) is not None}
    return load(asked.data, device=device, **options)


# What is said at the end


def _report(rows: Mapping[str, object]) -> None:
    shown = {visible(name): visible(value) for name, value in rows.items()}
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:{width}}  {value}")


def _about(noise: Perturbation, images: ImageSet) -> dict[str, object]:
    rows = {
        "method": noise.method,
        "pictures": f"{len(images):,} of {_by(images.images.shape[1:])}, {images.name}",
    }
    if METHODS[noise.method].norm == "L∞":
        rows["ε"] = f"{255 * noise.epsilon:g}/255 = {noise.epsilon:.4f} of the pixel range"
    rows["L∞"] = f"{round(255 * noise.linf)} of 255 levels"
    if min(images.images.shape[2:]) >= WINDOW:
        seen = visibility(images, noise).summary
        rows |= {
            "L2": f"{seen['l2']:.3f} in pixel values",
            "PSNR": f"{seen['psnr']:.1f} dB",
            "SSIM": f"{seen['ssim']:.4f}",
        }
    rows["seconds"] = f"{noise.seconds:.1f}"
    if (rate := _pictures_a_second(noise)) is not None:
        rows["images/s"] = f"{rate:,.0f}, a picture counting once for each forward and backward pass"
    return dict(rows)


def _pictures_a_second(noise: Perturbation) -> float | None:
    """In the median round; None for methods without rounds."""
    if not (noise.passes and noise.curves.get("seconds")):
        return None
    rounds = [after - before for before, after in itertools.pairwise([0.0, *noise.curves["seconds"]])]
    return noise.passes * len(noise.levels) / len(rounds) / statistics.median(rounds)


def _next_command(asked: Asked) -> str:
    words = ["python", "-m", "miue_lib", "train", "--data", asked.data]
    for name in ("size", "root", "profile"):
        if getattr(asked, name) is not None:
            words += [f"--{name}", str(getattr(asked, name))]
    return shlex.join([*words, "--noise", str(asked.out), "--out", "victim.safetensors"])


def _accuracy(model: nn.Module, images: ImageSet) -> str:
    share = accuracy(model, images)
    return f"{share:.4f} ± {math.sqrt(share * (1 - share) / len(images)):.4f} of {len(images):,}"


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


# Processes and devices


@contextmanager
def _process(device: torch.device | None) -> Iterator[torch.device]:
    """The device to work on; under torchrun it joins the other processes, on the GPU of its own number."""
    if _processes() == 1:
        yield _chosen(device)
        return
    patience = timedelta(hours=1)  # while one process downloads, the others wait
    if (device or default_device()).type == "cuda":
        device = _chosen(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
        distributed.init_process_group("nccl", device_id=device, timeout=patience)
    else:
        device = torch.device("cpu")
        distributed.init_process_group("gloo", timeout=patience)
    yield device
    # Not after an error: it would wait for the others, who may wait for this one. It ends, and torchrun ends them.
    distributed.destroy_process_group()


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _writes() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def _refuse_several_processes(command: str) -> None:
    if _processes() > 1:
        raise bad(
            f"{command} under torchrun", f"{_processes()} processes", "one: only craft and protect share their work"
        )


def _chosen(device: torch.device | None) -> torch.device:
    device = device or default_device()
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _one_before_the_others(work: Callable[[], T]) -> T:
    """`work()`, which may download: on each machine one process does it first, and the others find it done."""
    if not distributed.is_initialized():
        return work()
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        result = work()
        distributed.barrier()
        return result
    distributed.barrier()
    return work()
