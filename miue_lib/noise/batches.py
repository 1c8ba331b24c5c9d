"""Batches in which every picture has partners of its own class and others to differ from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from .._errors import bad
from ..data import ImageSet


class ClassBatches:
    """Batches for the noise phase in which every picture has partners of its own class and others to differ from.

    Each class is cut into groups of about `partners` pictures, or of size / classes where that is more, and the
    groups are dealt to the batches in turn, the largest class first. Where classes are few and even, every batch
    holds all of them alike. Batches are larger than `size` only where so few pictures are outside the largest class
    that smaller ones could not all have two classes.
    """

    def __init__(self, images: ImageSet, size: int, partners: int = 16) -> None:
        counts = check_classes(images)
        used = sorted((c for c, n in enumerate(counts) if n), key=lambda c: -counts[c])
        self.members = [(images.labels == c).nonzero()[:, 0] for c in used]
        wanted = min(size // 2, max(partners, size // len(used)))
        self.groups = [max(1, min(round(len(m) / wanted), len(m) // 2)) for m in self.members]
        # Dealt in turn, so many batches get a group outside the largest class, and so many get two groups.
        self.count = max(1, min(round(len(images) / size), sum(self.groups[1:]), sum(self.groups) // 2))

    def draw(self, generator: torch.Generator) -> Iterator[Tensor]:
        """The indices of each batch; together they hold every picture once."""
        batches: list[list[Tensor]] = [[] for _ in range(self.count)]
        turn = itertools.cycle(batches)
        # On the CPU, whatever the generator's device: the loop below would wait for a GPU.
        classes = torch.Generator().manual_seed(generator.initial_seed())
        others = 1 + torch.randperm(len(self.members) - 1, generator=classes)
        for c in [0, *others.tolist()]:
            order = torch.randperm(len(self.members[c]), generator=generator, device=generator.device)
            for group in self.members[c][order].tensor_split(self.groups[c]):
                next(turn).append(group)
        for batch in batches:
            yield torch.cat(batch)


def check_classes(images: ImageSet, processes: int = 1) -> list[int]:
    """The number of pictures of each class, or a `ValueError` unless there are two classes or more, and of each that
    there is two pictures or more for every one of the `processes` that share them."""
    counts: list[int] = torch.bincount(images.labels, minlength=len(images.classes)).tolist()
    if sum(n > 0 for n in counts) < 2:
        raise bad("images", "pictures of one class", "two classes or more")
    few = [(images.classes[c], n) for c, n in enumerate(counts) if 0 < n < 2 * processes]
    if few:
        given = ", ".join(f"{n} picture{'s' * (n > 1)} of class {title}" for title, n in few)
        least = "two or more" if processes == 1 else f"{2 * processes} or more, two for each of {processes} processes,"
        raise bad("images", given.replace("1 picture of", "one picture of"), f"{least} of each class")
    return counts
