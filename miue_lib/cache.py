"""Noise, victims and readings, kept on disk by content: chapters share them, and nothing stale is read.

A file's name is a digest of everything that its content depends on: the method, model or function, its pictures,
weights, tensors, settings and seed, this library's source, the versions of what it computes with, the processor, its
number of threads, and how exactly it was asked to multiply. Whatever of these changes gives another name, so a file
never has to be checked against them; what is not whole is computed again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from inspect import isfunction
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ._errors import bad
from ._files import digest_of, write_whole
from ._machine import processor
from .data import ImageSet
from .models import MODELS, Classifier, begin_with, build
from .noise import METHODS, craft
from .perturbation import Perturbation
from .train import History, fit


def _digest_of_source() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        digest.update(f"{path.relative_to(here)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


LIBRARY = _digest_of_source()  # now: a file that is edited later is not what this process runs


_MINUTES = 1.0  # between two checkpoints: what a killed run loses at most, besides an epoch

T = TypeVar("T")


class Cache:
    """A folder of noise, victims and readings; it is made when the first is kept.

    Settings must be plain values (numbers, strings, lists, mappings, None), and methods, models and functions this
    library's own: of anything else the name could not say whether it is the same. Else a `ValueError`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise bad("folder", repr(str(folder)), "a folder, or a path where one can be made")

    def craft(self, method: str, images: ImageSet, *, progress: Any = None, **settings: Any) -> Perturbation:
        """What `miue_lib.craft` returns for these arguments, from the folder if it was crafted before.

        A run that was stopped goes on where its last checkpoint, beside the file to be, left it.

        progress: as in `craft`; not called for what is read.
        """
        if method in METHODS and not _own(METHODS[method].run):
            raise bad("method", f"{method!r} of {METHODS[method].run.__module__}", "a method of this library")
        path = self._path("noise", method, [images], _plain("settings", settings))
        if path.exists():
            try:
                noise = Perturbation.load(path)
                return replace(noise, levels=noise.levels.to(images.device))
            except ValueError:  # not whole
                pass
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = path.with_suffix(".checkpoint")
        keep: dict[str, Any] = {"progress": progress, "checkpoint": checkpoint, "resume": True}
        keep |= {"checkpoint_minutes": _MINUTES}
        try:
            noise = craft(method, images, **keep, **settings)
        except ValueError:
            if not checkpoint.exists():
                raise
            checkpoint.unlink()  # not whole
            noise = craft(method, images, **keep, **settings)
        noise.save(path)
        checkpoint.unlink(missing_ok=True)
        return noise

    def fit(
        self,
        model: str,
        train: ImageSet,
        *,
        test: ImageSet | None = None,
        seed: int = 0,
        start: Classifier | None = None,
        on_epoch: Callable[[int, History], None] | None = None,
        **settings: Any,
    ) -> tuple[Classifier, History]:
        """A victim `build(model, train, seed=seed)` after `fit(…, train, test=test, seed=seed, **settings)`, and its
        curves; from the folder if it was trained before. A run that was stopped goes on where its last checkpoint,
        beside the file to be, left it.

        start: a model of the same architecture whose feature extractor the victim begins with.
        on_epoch: as in `fit`; not called for what is read.
        """
        if model in MODELS and not _own(MODELS[model]):
            raise bad("model", f"{model!r} of {MODELS[model].__module__}", "a model of this library")
        contents: list[Any] = [images for images in (train, test, start) if images is not None]
        path = self._path("victim", model, contents, settings | {"seed": seed})
        victim = build(model, train, seed=seed)
        history = _load(path, victim)
        if history is None:
            if start is not None:
                begin_with(victim, start)
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint = path.with_suffix(".checkpoint")
            keep: dict[str, Any] = {"on_epoch": on_epoch, "checkpoint": checkpoint, "checkpoint_minutes": _MINUTES}
            try:
                history = fit(victim, train, test=test, seed=seed, **keep, **settings)
            except ValueError:
                if not checkpoint.exists():
                    raise
                checkpoint.unlink()  # not whole
                return self.fit(model, train, test=test, seed=seed, start=start, on_epoch=on_epoch, **settings)
            weights = {name: tensor.cpu().contiguous() for name, tensor in victim.state_dict().items()}
            write_whole(path, save(weights, metadata={"history": json.dumps(asdict(history))}))
            checkpoint.unlink(missing_ok=True)
        return victim, history

    def pictures(self, function: Callable[..., ImageSet], /, *arguments: Any, **settings: Any) -> ImageSet:
        """The pictures that `function(*arguments, **settings)` returns, from the folder if they were made before.

        function, arguments, settings: as in `keep`. The first argument is an `ImageSet`; what is returned must have its
        labels and classes, since only the pictures and the name are kept.
        """
        name = _name_of(function)
        path = self._path("pictures", f"{function.__module__}.{name}", arguments, settings)
        first: ImageSet = arguments[0]
        try:
            with safe_open(path, framework="pt") as file:
                return replace(first, images=file.get_tensor("images").to(first.device), name=file.metadata()["name"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):  # not there, or not whole
            made = function(*arguments, **settings)
        if not torch.equal(made.labels, first.labels) or made.classes != first.classes:
            raise bad(f"value of {name}", "other labels or classes", "those of the first argument")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, save({"images": made.images.cpu().contiguous()}, metadata={"name": made.name}))
        return made

    def keep(self, function: Callable[..., Any], /, *arguments: Any, **settings: Any) -> Any:
        """The value of `function(*arguments, **settings)`, from the folder if it was computed before.

        function: one at the top of a module of this library, whose value nothing but its arguments decides.
        arguments, settings: each a plain value, an `ImageSet`, a tensor, or a `Classifier` that `build` made, of which
            weights and mode count. What has the same content in another object is the same.

        The value must be what JSON can hold: finite numbers, strings, None, and lists and mappings of them. It comes
        as JSON gives it, also the first time: a tuple as a list, keys as strings.

        Raises `ValueError` for any other function, argument or value.
        """
        name = _name_of(function)
        path = self._path("reading", f"{function.__module__}.{name}", arguments, settings, "json")
        try:
            return json.loads(path.read_bytes())["value"]
        except (OSError, ValueError, KeyError, TypeError):  # not there, or not whole
            pass
        value = _plain(f"value of {name}", function(*arguments, **settings))
        try:
            # In a mapping, which needs its closing brace: the first digits of a number would be a number too.
            written = json.dumps({"value": value}, allow_nan=False)
        except ValueError as error:
            raise bad(f"value of {name}", "NaN or infinity in it", "finite numbers") from error
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, written.encode())
        return json.loads(written)["value"]

    def at_once(self, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
        """The results of `calls`, in their order; on a CPU made side by side, a process with one thread for each core.

        For many small runs that is a third faster than one after the other on all cores, which wait for each other at
        every layer. What is crafted or trained inside is kept under the name of a run with one thread, whatever the
        number of cores. Where there is a GPU, the calls are made here, one after the other.
        """
        todo = list(calls)
        if torch.cuda.is_available():
            yield from (call() for call in todo)
            return
        from joblib import Parallel, delayed, parallel_config  # comes with scikit-learn, and only the book needs it

        # Processes that have used much memory are replaced by fresh ones, as they should be. The warning comes from a
        # thread of joblib's, which a filter set for this call alone would not reach.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given to the executor")
        with parallel_config("loky", inner_max_num_threads=1):
            yield from Parallel(n_jobs=-1, return_as="generator")(delayed(_with_one_thread)(call) for call in todo)

    def _path(
        self, kind: str, name: str, arguments: Sequence[Any], settings: Mapping[str, Any], ending: str = "safetensors"
    ) -> Path:
        """Where what `name` makes of these arguments is kept: a file called after the last part of a dotted name."""
        given = {f"arguments[{i}]": value for i, value in enumerate(arguments)}
        given |= {f"settings[{key!r}]": value for key, value in sorted(settings.items())}
        contents = {key: _content(key, value) for key, value in given.items()}
        depends = [kind, name, contents, _machine(_first_device(given.values())), LIBRARY]
        digest = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
        return self.folder / f"{kind}-{name.rpartition('.')[2]}-{digest[:24]}.{ending}"


def _with_one_thread(call: Callable[[], T]) -> T:
    torch.set_num_threads(1)  # torch in a new process counts the cores, whatever joblib asked for
    return call()


def _load(path: Path, victim: Classifier) -> History | None:
    """The curves of a victim whose weights are read into `victim`; None if the file is not there, or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in victim.state_dict()}
            history = History(**json.loads(file.metadata()["history"]))
        victim.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    return history


def _own(function: Any) -> bool:
    """Whether `LIBRARY` is a digest of its source too."""
    return str(function.__module__).partition(".")[0] == __name__.partition(".")[0]


def _name_of(function: Any) -> str:
    """The name of a function at the top of a module of this library; `ValueError` for anything else."""
    name = getattr(function, "__qualname__", type(function).__name__)
    if not _on_top(function):
        raise bad("function", repr(name), "a function at the top of a module of this library")
    return str(name)


def _on_top(function: Any) -> bool:
    """Whether it is a function that a module of this library holds under its name: what is made inside another
    function may depend on more than its source."""
    if not isfunction(function) or not _own(function):
        return False
    return getattr(sys.modules.get(function.__module__), function.__qualname__, None) is function


def _content(name: str, value: Any) -> list[Any]:
    """What kind of value it is, and its content as JSON can write it."""
    if isinstance(value, ImageSet):
        return ["pictures", value.fingerprint, value.classes]
    if isinstance(value, Tensor):
        return ["tensor", digest_of({"": value})]
    if isinstance(value, Classifier):
        if value.architecture not in MODELS:
            raise bad(name, "a Classifier of an unknown architecture", "one made by build")
        modes = [module.training for module in value.modules()]
        about = [value.architecture, value.picture_shape, value.class_names, modes]
        return ["model", *about, digest_of(value.state_dict())]
    if is_dataclass(value) and callable(value) and _own(type(value)):  # a defence: its settings, and whose they are
        return ["settings", type(value).__qualname__, _plain(name, asdict(cast(Any, value)))]
    return ["plain", _plain(name, value, f"{_PLAIN}; or an ImageSet, a tensor or a Classifier")]


def _first_device(values: Iterable[Any]) -> torch.device:
    """Of the first that has one; else the CPU."""
    for value in values:
        if isinstance(value, ImageSet | Tensor | Classifier):
            return value.mean.device if isinstance(value, Classifier) else value.device
    return torch.device("cpu")


_PLAIN = "a plain value: a number, string, list, mapping or None"


def _plain(name: str, value: Any, expected: str = _PLAIN) -> Any:
    """`value` as JSON can write it: profiles hold mappings that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{name}[{key!r}]", inner, expected) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, inner, expected) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise bad(name, type(value).__name__, expected)


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine(device: torch.device) -> list[Any]:
    """What else decides the last bits: the same program on another processor rounds differently."""
    backends: Any = torch.backends
    return [
        [_version(package) for package in ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "numba")],
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        processor(),
        torch.get_num_threads(),
        [
            backends.mkldnn.matmul.fp32_precision,
            backends.cuda.matmul.fp32_precision,
            backends.cudnn.conv.fp32_precision,
        ],
        torch._C._get_mkldnn_enabled(),
    ]
