"""What the fast CPU paths share: functions compiled by numba, and a thread for each core.

Compiled functions release Python's lock, so plain threads run slices side by side. No OpenMP is involved: two
runtimes, torch's and numba's, would spin for the same cores.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` compiled on its first call for each type of arguments, and kept on disk for the next process."""
    wrapped: Callable[..., Any]
    try:
        wrapped = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep it: a read-only installation of a user without a home
        wrapped = numba.njit(nogil=True)(function)
    return wrapped


_WORTH_THREADS = 1e6  # nanoseconds; below, starting threads costs more than it saves


def each(function: Callable[[int], None], count: int, nanoseconds: float) -> None:
    """function(0), …, function(count − 1) on as many threads as torch would use, each call of about so many ns."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1 or count * nanoseconds < _WORTH_THREADS:
        for i in range(count):
            function(i)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(function, range(count)):
            pass  # taking the results raises what a thread raised


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's memory, contiguous."""
    array: np.ndarray = tensor.detach().contiguous().numpy()
    return array
