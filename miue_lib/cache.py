"""Crafted noise and trained victims, kept on disk by content: chapters share them, and nothing stale is read.

A file's name is a digest of everything that its content depends on: pictures, method or model, settings and seed, this
library's source, the version of torch, the processor and its number of threads. Whatever of these changes gives another
name, so a file never has to be checked against them; what is not whole is computed again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ._errors import bad
from ._files import write_whole
from .data import ImageSet
from .models import Classifier, build
from .noise import craft
from .perturbation import Perturbation
from .train import History, fit


class Cache:
    """A folder of noise and victims; it is made when the first is kept."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise bad("folder", repr(str(folder)), "a folder, or a path where one can be made")

    def craft(self, method: str, images: ImageSet, *, progress: Any = None, **settings: Any) -> Perturbation:
        """What `miue_lib.craft` returns for these arguments, from the folder if it was crafted before."""
        path = self._path("noise", method, settings, images)
        try:
            return Perturbation.load(path)
        except ValueError:  # not there, or not whole
            told = {} if progress is None else {"progress": progress}
            noise = craft(method, images, **settings, **told)
            self.folder.mkdir(parents=True, exist_ok=True)
            noise.save(path)
            return noise

    def fit(
        self, model: str, train: ImageSet, *, test: ImageSet | None = None, seed: int = 0, **settings: Any
    ) -> tuple[Classifier, History]:
        """A victim `build(model, train, seed=seed)` after `fit(…, train, test=test, seed=seed, **settings)`, and its
        curves; from the folder if it was trained before."""
        sets = (train,) if test is None else (train, test)
        path = self._path("victim", model, settings | {"seed": seed, "tested": test is not None}, *sets)
        victim = build(model, train, seed=seed)
        try:
            with safe_open(path, framework="pt") as file:
                weights = {name: file.get_tensor(name) for name in victim.state_dict()}
                history = History(**json.loads(file.metadata()["history"]))
            victim.load_state_dict(weights)
        except (OSError, SafetensorError):  # not there, or not whole
            history = fit(victim, train, test=test, seed=seed, **settings)
            weights = {name: tensor.cpu().contiguous() for name, tensor in victim.state_dict().items()}
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, save(weights, metadata={"history": json.dumps(asdict(history))}))
        return victim, history

    def _path(self, kind: str, name: str, settings: dict[str, Any], *sets: ImageSet) -> Path:
        depends = [kind, name, settings, [images.fingerprint for images in sets], _machine(sets[0].images), _library()]
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True, default=_plain).encode()).hexdigest()
        return self.folder / f"{kind}-{name}-{digest[:24]}.safetensors"


def _plain(value: Any) -> Any:
    """Settings that JSON doesn't know: profiles hold mappings that can't be written to."""
    return dict(value) if hasattr(value, "keys") else repr(value)


def _machine(images: Tensor) -> list[Any]:
    """What else decides the last bits: the same program on another processor rounds differently."""
    device = images.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return [torch.__version__, where, torch.get_num_threads(), torch.cpu._is_avx512_bf16_supported()]


@cache
def _library() -> str:
    """A digest of this library's source."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(here.rglob("*.py")):
        digest.update(f"{path.relative_to(here)}\0".encode() + path.read_bytes())
    return digest.hexdigest()
