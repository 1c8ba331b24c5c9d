"""Crafted noise and trained victims, kept on disk by content: chapters share them, and nothing stale is read.

A file's name is a digest of everything that its content depends on: pictures, method or model, settings and seed, this
library's source, the versions of torch and torchvision, the processor, its number of threads, and how exactly it was
asked to multiply. Whatever of these changes gives another name, so a file never has to be checked against them; what
is not whole is computed again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ._errors import bad
from ._files import write_whole
from .data import ImageSet
from .models import MODELS, Classifier, build
from .noise import METHODS, craft
from .perturbation import Perturbation
from .train import History, fit


def _digest_of_source() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        digest.update(f"{path.relative_to(here)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


_LIBRARY = _digest_of_source()  # now: a file that is edited later is not what this process runs


T = TypeVar("T")


class Cache:
    """A folder of noise and victims; it is made when the first is kept.

    Settings must be plain values (numbers, strings, lists, mappings, None), and methods and models this library's own:
    of anything else the name could not say whether it is the same. Else a `ValueError`.
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
        path = self._path("noise", {name: known.run for name, known in METHODS.items()}, method, settings, images)
        if path.exists():
            try:
                noise = Perturbation.load(path)
                return replace(noise, levels=noise.levels.to(images.device))
            except ValueError:  # not whole
                pass
        self.folder.mkdir(parents=True, exist_ok=True)
        checkpoint = path.with_suffix(".checkpoint")
        keep: dict[str, Any] = {"progress": progress, "checkpoint": checkpoint, "resume": True}
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
        self, model: str, train: ImageSet, *, test: ImageSet | None = None, seed: int = 0, **settings: Any
    ) -> tuple[Classifier, History]:
        """A victim `build(model, train, seed=seed)` after `fit(…, train, test=test, seed=seed, **settings)`, and its
        curves; from the folder if it was trained before."""
        sets = (train,) if test is None else (train, test)
        path = self._path("victim", MODELS, model, settings | {"seed": seed}, *sets)
        victim = build(model, train, seed=seed)
        history = _load(path, victim)
        if history is None:
            history = fit(victim, train, test=test, seed=seed, **settings)
            weights = {name: tensor.cpu().contiguous() for name, tensor in victim.state_dict().items()}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, save(weights, metadata={"history": json.dumps(asdict(history))}))
        return victim, history

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

        with parallel_config("loky", inner_max_num_threads=1):
            yield from Parallel(n_jobs=-1, return_as="generator")(delayed(_with_one_thread)(call) for call in todo)

    def _path(self, kind: str, known: Mapping[str, Any], name: str, settings: dict[str, Any], *sets: ImageSet) -> Path:
        if name in known and known[name].__module__.partition(".")[0] != __name__.partition(".")[0]:
            raise bad(kind, f"{name!r} of {known[name].__module__}", "a method or model of this library")
        pictures = [[images.fingerprint, len(images.classes)] for images in sets]
        depends = [kind, name, _plain("settings", settings), pictures, _machine(sets[0].device), _LIBRARY]
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{kind}-{name}-{digest[:24]}.safetensors"


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


def _plain(name: str, value: Any) -> Any:
    """`value` as JSON can write it: profiles hold mappings that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{name}[{key!r}]", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise bad(name, type(value).__name__, "a plain value: a number, string, list, mapping or None")


def _machine(device: torch.device) -> list[Any]:
    """What else decides the last bits: the same program on another processor rounds differently."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    backends: Any = torch.backends
    return [
        torch.__version__,
        torchvision.__version__,
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        model[1] if model else platform.processor() or platform.machine(),
        torch.get_num_threads(),
        [
            backends.mkldnn.matmul.fp32_precision,
            backends.cuda.matmul.fp32_precision,
            backends.cudnn.conv.fp32_precision,
        ],
        torch._C._get_mkldnn_enabled(),
    ]
