"""The processes that craft one perturbation together, under torchrun: who has which pictures, and what they exchange.

Each process (a *rank* of `torch.distributed`) owns every world-th picture of each class and the noise of those, and
holds the same surrogate, whose gradients are averaged after every backward pass. In a loss that compares pictures with
each other, each rank sees the features of all, and differentiates in its own.

What one rank alone finds wrong, all must learn of: a rank that raises an error while the others wait for it would leave
them waiting.

With one process nothing is exchanged, and everything here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from .._errors import bad
from ..data import ImageSet

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Ranks:
    """rank: this process's number, from 0. world: how many there are. control: a group of processes that talk over the
    CPU, so that what they agree on never waits for a GPU."""

    rank: int = 0
    world: int = 1
    control: Any = None

    @classmethod
    def current(cls) -> Ranks:
        """The processes of `torch.distributed` if it is initialised with several, else this one alone."""
        if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return cls()
        gloo = distributed.get_backend() == "gloo"
        control = None if gloo else distributed.new_group(backend="gloo", timeout=timedelta(hours=1))
        return cls(distributed.get_rank(), distributed.get_world_size(), control)

    def agree_on(self, name: str, value: str) -> None:
        """Raise `ValueError` on every rank unless all were given the same."""
        if self.world > 1 and len(set(self.everyones(value))) > 1:
            raise bad(name, f"different {name} in the {self.world} processes", "the same in each")

    @property
    def first_here(self) -> bool:
        """Whether this is the first rank on its machine, as torchrun counts them."""
        return int(os.environ.get("LOCAL_RANK", self.rank)) == 0

    def everyones(self, value: Any) -> list[Any]:
        """The value of every rank, in order."""
        values = [value] * self.world
        if self.world > 1:
            distributed.all_gather_object(values, value, group=self.control)
        return values

    def all_or_none(self, work: Callable[[], T]) -> T:
        """`work()`, which may raise `ValueError` or `OSError`; if it does on one rank, all raise its error."""
        error = done = None
        try:
            done = work()
        except (ValueError, OSError) as caught:
            error = caught
        errors = self.everyones(None if error is None else (isinstance(error, OSError), str(error)))
        if error is not None:
            raise error
        for of_disk, words in filter(None, errors):
            raise (OSError if of_disk else ValueError)(f"in another process: {words}")
        return cast(T, done)

    def most(self, value: int) -> int:
        """The largest value of any rank."""
        if self.world == 1:
            return value
        number = torch.tensor(value)
        distributed.all_reduce(number, distributed.ReduceOp.MAX, group=self.control)
        return int(number)

    def least(self, value: int) -> int:
        """The smallest value of any rank."""
        return -self.most(-value)

    def close(self) -> None:
        """Dissolve the group that talks over the CPU, if it is one of our own."""
        if self.control is not None:
            distributed.destroy_process_group(self.control)

    def lost(self, error: RuntimeError) -> bool:
        """Whether the error, in its own words, says that another process has ended."""
        return self.world > 1 and (
            isinstance(error, distributed.DistError) or any(word in str(error) for word in ("gloo", "NCCL"))
        )

    def barrier(self) -> None:
        """Wait for the others."""
        self.most(0)

    def members(self, images: ImageSet) -> Tensor:
        """The places of this rank's pictures: of each class, and of all, an equal share to within one."""
        return images.labels.argsort(stable=True)[self.rank :: self.world].sort().values

    def average_gradients(self, model: nn.Module) -> None:
        """Give every rank the mean of the gradients.

        All at once, in the order of the parameters: the order of summation never changes, so that a run that is
        continued stays equal to the last bit. (DistributedDataParallel forms its groups anew after its first step.)
        """
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.world
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def same_weights(self, model: nn.Module) -> None:
        """Give every rank the first one's parameters and buffers."""
        if self.world > 1:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, 0)

    def average_statistics(self, model: nn.Module) -> None:
        """Give every rank the mean of the floating-point buffers, which are batch normalisation's statistics."""
        if self.world > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    distributed.all_reduce(buffer)
                    buffer /= self.world

    def total(self, number: Tensor) -> Tensor:
        """The sum over the ranks."""
        if self.world > 1:
            distributed.all_reduce(number)
        return number

    def batch(self, labels: Tensor) -> Batch:
        """The batch that the ranks' batches make together; all of them call this at once."""
        return Batch(labels) if self.world == 1 else Batch(labels, self.rank, self.everyones(len(labels)))

    def collect(self, part: Tensor, images: ImageSet, out: Tensor | None) -> None:
        """Put every rank's `part`, levels `(n, C, H, W)`, in its place among all pictures, `out` `(N, C, H, W)`.

        out: None for a rank that only gives.
        """
        members = self.members(images).cpu()
        rows = max(1, (1 << 22) // images.images[0].numel())
        for start in range(0, len(images), rows):
            # Places that are another rank's stay 0 here, so that the sum over the ranks is the union.
            mine = ((members >= start) & (members < start + rows)).nonzero()[:, 0]
            block = torch.zeros(images.images[start : start + rows].shape, dtype=torch.int32)
            block[members[mine] - start] = part[mine.to(part.device)].to("cpu", torch.int32)
            distributed.all_reduce(block, group=self.control)
            if out is not None:
                out[start : start + rows] = block


class Batch:
    """A batch of this rank as part of one over all ranks, for losses that compare pictures.

    labels: int64 `(n,)`, of this rank's pictures. all_labels: `(B,)`, of all ranks', in their order.
    """

    def __init__(self, labels: Tensor, rank: int = 0, sizes: list[int] | None = None) -> None:
        self.labels = labels
        self._rank, self._sizes = rank, sizes
        self.all_labels = labels if sizes is None else torch.cat(self._exchange(labels, sizes))

    def all_features(self, own: Tensor) -> Tensor:
        """Features of all ranks' pictures `(B, d)`; the gradient flows to `own` `(n, d)` only.

        As every rank computes the whole loss, that gradient is the exact one, of all anchors, in `own`.
        """
        if self._sizes is None:
            return own
        parts = self._exchange(own.detach(), self._sizes)
        parts[self._rank] = own
        return torch.cat(parts)

    def _exchange(self, own: Tensor, sizes: list[int]) -> list[Tensor]:
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # the ranks must send equally much
        padded[: len(own)] = own
        received = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(received, padded)
        return [part[:size] for part, size in zip(received, sizes, strict=True)]
