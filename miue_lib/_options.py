"""The words of the command line: options, defaults, examples. What they do is in `cli`."""

from __future__ import annotations

import argparse
import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from .data import DATASETS
from .mi import ESTIMATORS
from .models import MODELS
from .noise import METHODS
from .profiles import PROFILES, Profile
from .suite import TABLES
from .train import fit

# What the methods and `fit` take, but is an option of its own here, or none at all.
_OWN_OPTIONS = frozenset({"epsilon", "seed", "test"})
_NO_OPTIONS = frozenset({"on_epoch", "execution", "progress", "defense", "checkpoint", "checkpoint_minutes"})
_INDENTED: Any = {"initial_indent": "    ", "subsequent_indent": "    "}

_CODES = """\
exit codes:
  0    done
  1    failed at work: a loss that is no longer finite, memory or disk that ran out, a download that broke off
  2    arguments or input that cannot be used
  3    evaluate: stopped in time with runs left, which the same command goes on with
  130  interrupted (Ctrl-C)
  143  terminated (SIGTERM)
"""

_ALL = """\
Unlearnable examples: noise within a budget that makes published pictures useless for training.

Protect a folder of your pictures, and read what that buys. Or, step by step: craft noise; train a victim on what you
would publish; measure, with mi, how much the victim's features of published pictures tell about those of clean ones.
"""

_EXAMPLE = """\
example, with your own pictures, a folder for each class:
  python -m miue_lib protect photos --out protected

example, without a network, some ten minutes on two cores:
  python -m miue_lib craft --data fashion-mnist-mini --method miue --out noise.safetensors
  python -m miue_lib train --data fashion-mnist-mini --noise noise.safetensors --out victim.safetensors
  python -m miue_lib mi --data fashion-mnist-mini --noise noise.safetensors --victim victim.safetensors
"""

_CRAFT = """\
Where a method is bounded in L∞, the noise moves no pixel by more than ε. It belongs to these very pictures: for others
it is refused. What is said of it at the end goes to stdout. The settings below are explained by
help(miue_lib.METHODS[NAME].run). On several GPUs: torchrun --nproc-per-node=GPUS -m miue_lib craft …
"""

_CRAFT_EXAMPLES = """\
examples:
  python -m miue_lib craft --data fashion-mnist-mini --method miue --out noise.safetensors
  python -m miue_lib craft --data folder:photos --size 224 --method miue --out noise.safetensors \\
      --profile gpu --epsilon 4/255 --set epochs=50 noise_batch_size=256
  python -m miue_lib craft … --out noise.safetensors --resume    # the same again, after it was cut off
"""

_TRAIN = """\
Without --noise on the clean training pictures; with it on those that would be published. Tested on clean pictures.
"""

_TRAIN_EXAMPLES = """\
examples:
  python -m miue_lib train --data fashion-mnist-mini
  python -m miue_lib train --data fashion-mnist-mini --noise noise.safetensors --out victim.safetensors
"""

_MI = """\
Mutual information I(g(x); g(x')) in nats: g is the victim's feature extractor, x a clean picture, x' = x + δ the
published one. By default sliced: the mean over pairs of random directions in feature space.
"""

_MI_EXAMPLES = """\
examples:
  python -m miue_lib mi --data fashion-mnist-mini --noise noise.safetensors --victim victim.safetensors
  python -m miue_lib mi … --estimator mine --slices 0    # of the feature vectors themselves
"""


_EVALUATE = """\
Every case of the tables, with every seed of the profile: noise, a victim, its accuracy on clean test pictures. A record
of each lands in FOLDER/TABLE as soon as its first seed is done. Stop it whenever you like; the same command goes on.
"""

_EVALUATE_EXAMPLES = """\
examples:
  python -m miue_lib evaluate --suite paper --out book/results --data cifar10
  python -m miue_lib evaluate --suite paper --out book/results --data cifar10 --tables methods --minutes 9
  python -m miue_lib evaluate --suite paper --out book/results --data folder:imagenet-subset --size 224 \\
      --tables methods ablation --name "ImageNet subset"
"""


_PROTECT = """\
PHOTOS is a folder with a folder for each class (a person, a product, a style), with pictures in it of any size: JPEG,
PNG, WebP. PROTECTED gets the same tree, every picture as PNG, upright and without its metadata; a manifest
(manifest.json: settings, what changed in every picture, checksums, and every file that was left out, with the reason);
and a report (report.html: what networks still learn from the published pictures, measured on yours; it shows some of
these unprotected). Publish the class folders only, neither report nor manifest. Two classes are needed, and hundreds of
pictures are better than dozens. PHOTOS is only read. After a kill, at any moment, the same command goes on, and the
output is the same, byte for byte on a CPU. Every picture is read back after it was written: no colour value has changed
by more than the budget. The settings below are explained by help(miue_lib.METHODS[NAME].run). On several GPUs: torchrun
--nproc-per-node=GPUS -m miue_lib protect … (the same number again to go on).
"""

_PROTECT_EXAMPLES = """\
examples:
  python -m miue_lib protect photos --out protected --dry-run    # what would be done, and how long it would take
  python -m miue_lib protect photos --out protected
  python -m miue_lib protect photos --out protected --budget 4 --webp --method em --set epochs=20
"""


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` is the one that was chosen."""
    main = argparse.ArgumentParser(
        prog="python -m miue_lib",
        description=_ALL,
        epilog=f"{_EXAMPLE}\n{_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(required=True, dest="command", metavar="COMMAND", title="each has its own --help")

    def command(name: str, title: str, words: str, epilog: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name,
            help=title,
            description=f"{title[0].upper()}{title[1:]}.\n\n{words}",
            epilog=f"{epilog}\n{_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name != "protect":  # which has pictures of its own
            _pictures(made)
        _running(made)
        return made

    methods = {name: method.run for name, method in METHODS.items()}
    table = _table(methods, lambda size, method: size.noise[method])
    many = "where there are thousands of pictures; with fewer, rounds are more"
    own = table.replace("without --set:", f"without --set {many}:", 1)
    title = "publish a folder of pictures with noise that hampers training on them"
    _protect(command("protect", title, _PROTECT, f"{own}\n{_PROTECT_EXAMPLES}"))
    _craft(command("craft", "make noise for the training pictures", _CRAFT, f"{table}\n{_CRAFT_EXAMPLES}"))
    table = _table({"training": fit}, lambda size, _: size.victim)
    _train(command("train", "train a victim, clean or on published pictures", _TRAIN, f"{table}\n{_TRAIN_EXAMPLES}"))
    _mi(command("mi", "measure what published pictures tell a victim about clean ones", _MI, _MI_EXAMPLES))
    _evaluate(command("evaluate", "run the tables of the paper and record them", _EVALUATE, _EVALUATE_EXAMPLES))
    return main


def settings_of(function: Callable[..., Any]) -> dict[str, Any]:
    """What --set may name, and the defaults: the keyword arguments that are no options of their own."""
    parameters = inspect.signature(function).parameters.values()
    hidden = _OWN_OPTIONS | _NO_OPTIONS
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in hidden}


def _table(functions: Mapping[str, Callable[..., Any]], given: Callable[[Profile, str], Mapping[str, Any]]) -> str:
    """What --set may name for each function, at the value that it has without --set in each profile."""
    lines = ["settings, as they are without --set:"]
    for name, function in functions.items():
        for size in PROFILES.values():
            settings = {**settings_of(function), **given(size, name)}
            if settings:
                words = " ".join(f"{key}={_shown(key, value)}" for key, value in settings.items())
                lines += [f"  {name}, profile {size.name}:", textwrap.fill(words, 110, **_INDENTED)]
    return "\n".join(lines) + "\n"


def _shown(name: str, value: Any) -> str:
    """As --set reads it."""
    if name in ("step", "attack_step", "attack_radius"):
        return f"{255 * value:g}/255"
    return json.dumps(value, default=str).strip('"')


def _pictures(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("pictures").add_argument
    sets = ", ".join(DATASETS)
    add("--data", required=True, metavar="DATA", help=f"{sets}, or folder:PATH with class/picture.png (.jpg, .webp)")
    add("--size", type=int, metavar="PIXELS", help="folder: side to which pictures are resized and cut (default: 32)")
    add("--root", metavar="FOLDER", help="where downloads are kept (default: ~/.cache/miue_lib)")


def _running(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("running").add_argument
    add("--device", type=_device, help="cpu, cuda or cuda:1, say (default: the GPU where there is one)")
    add("--seed", type=int, default=0, help="same seed, same result, on one kind of machine (default: %(default)s)")
    add("--traceback", action="store_true", help="show where an error comes from")


def _protect(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("pictures").add_argument
    add("photos", type=Path, metavar="PHOTOS", help="a folder class/picture.* (.jpg, .png, .webp); it is only read")
    out = "a new or empty folder for the same tree, or one that this command began, to go on"
    add("--out", required=True, type=Path, metavar="PROTECTED", help=out)
    add("--webp", action="store_true", help="write lossless WebP (default: PNG)")
    kept = "keep EXIF, which may tell where and when, and on whose camera, a picture was taken (default: drop it)"
    add("--keep-metadata", action="store_true", help=kept)
    add = command.add_argument_group("noise").add_argument
    add("--method", default="miue", choices=list(METHODS), help="(default: %(default)s; the chapter The zoo compares)")
    budget = (
        "the most that a colour value changes, of 255: less is less visible, and protects less (default: 8; not for"
    )
    add("--budget", type=int, metavar="LEVELS", help=f"{budget} methods that are bounded otherwise)")
    size = "side of the squares that trainers are expected to make of the pictures, and that noise is crafted for"
    add("--size", type=int, default=32, metavar="PIXELS", help=f"{size} (default: %(default)s)")
    _settings(add)
    add = command.add_argument_group("report").add_argument
    add("--seeds", type=int, default=6, help="repetitions of each measurement: more tell more (default: %(default)s)")
    add("--no-report", action="store_true", help="train none, and write no report")
    dry = "write nothing: say what would be done and left out, how large, how long, with how much memory"
    add("--dry-run", action="store_true", help=dry)


def _craft(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("noise").add_argument
    add("--method", required=True, choices=list(METHODS), help="the chapter The zoo compares them")
    epsilon = "the most that a pixel moves, of a range from 0 to 1: 8/255 or 0.03, say (default: 8/255, for methods"
    add("--epsilon", type=_number, metavar="ε", help=f"{epsilon} that are bounded so; refused for others)")
    _settings(add)
    files = command.add_argument_group("files")
    add = files.add_argument
    add("--out", required=True, type=Path, metavar="FILE", help="the noise, as safetensors")
    add("--force", action="store_true", help="write over files that exist")
    either = files.add_mutually_exclusive_group()
    checkpoint = "where --resume goes on; deleted when OUT is written (default: OUT with the suffix .checkpoint)"
    either.add_argument("--checkpoint", type=Path, metavar="FILE", help=checkpoint)
    either.add_argument("--no-checkpoint", action="store_true", help="write none")
    minutes = "minutes between two checkpoints (default: %(default)s)"
    add("--checkpoint-minutes", type=_number, default=5, metavar="MINUTES", help=minutes)
    add("--resume", action="store_true", help="go on from the checkpoint; where there is none, begin")
    delta = "hold the noise in the making in this memory-mapped file; deleted when OUT is written (default: in memory)"
    add("--delta-file", type=Path, metavar="FILE", help=delta)


def _train(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("victim").add_argument
    add("--noise", type=Path, metavar="FILE", help="what craft wrote for these pictures (default: none, clean ones)")
    add("--model", choices=list(MODELS), help="(default: the profile's)")
    add("--epochs", type=int, help="passes over the pictures (default: the profile's)")
    _settings(add)
    add("--out", type=Path, metavar="FILE", help="the trained victim, as safetensors (default: not kept)")
    add("--force", action="store_true", help="write over a file that exists")


def _mi(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("measurement").add_argument
    add("--noise", type=Path, required=True, metavar="FILE", help="what craft wrote for these pictures")
    add("--victim", type=Path, required=True, metavar="FILE", help="what train --out wrote")
    on = "the pictures that the noise was made for; craft makes it for the training pictures (default: %(default)s)"
    add("--on", choices=["train", "test"], default="train", help=on)
    add("--estimator", choices=list(ESTIMATORS), default="ksg", help="(default: %(default)s)")
    slices = "pairs of directions; 0 takes the feature vectors themselves (default: %(default)s)"
    add("--slices", type=int, default=200, help=slices)


def _evaluate(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("tables").add_argument
    add("--suite", choices=["paper"], default="paper", help="which tables (default: %(default)s)")
    add("--tables", nargs="+", choices=TABLES, metavar="TABLE", help=f"some of {', '.join(TABLES)} (default: all)")
    add("--list", action="store_true", help="say which cases there are and how many runs are recorded, and end")
    _profile(add)
    named = "what the pictures are called in records (default: as the set is called, with how many of them are used)"
    add("--name", metavar="NAME", help=named)
    pretrained = "also record victims that begin with the features of this model, which train --out wrote"
    add("--pretrained", type=Path, metavar="FILE", help=pretrained)
    add = command.add_argument_group("files").add_argument
    add(
        "--out", required=True, type=Path, metavar="FOLDER", help="of the records, JSON; what is there is not run again"
    )
    work = "of noise and victims, to go on with; 45 MB a ResNet-18, to be removed by hand (default: ~/.cache/miue_lib/"
    work += "evaluate)"
    add("--work", type=Path, metavar="FOLDER", help=work)
    minutes = (
        "stop after so many, at the end of a round or an epoch (GUE and purifiers, which have neither, are run to "
    )
    minutes += "their end); run the command again to go on (default: never)"
    add("--minutes", type=_number, metavar="MINUTES", help=minutes)


def _profile(add: Callable[..., Any]) -> None:
    table = "settings to start from: cpu is sized for minutes on two cores, gpu is the paper's (default: by the device)"
    add("--profile", choices=list(PROFILES), help=table)


def _settings(add: Callable[..., Any]) -> None:
    _profile(add)
    named = "others in their place, by the names below: 12, 0.1, 1.6/255, true, null or a word"
    add("--set", nargs="+", action="extend", default=[], type=_setting, metavar="NAME=VALUE", help=named)


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
        if device.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # no such device, not here, or not in this build of torch
        raise argparse.ArgumentTypeError(f"got {text!r} ({str(error).splitlines()[0]})") from error
    return device


def _number(text: str) -> float:
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number such as 8/255 or 0.03") from error


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE")
    words: dict[str, Any] = {"true": True, "false": False, "null": None}
    if value in words:
        return name, words[value]
    try:
        return name, int(value)
    except ValueError:
        pass
    try:
        return name, _number(value)
    except argparse.ArgumentTypeError:
        if value[:1].isdigit():  # no word, but a slip in a number
            raise
    return name, value
