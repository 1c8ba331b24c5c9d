"""Triton where it is installed. It comes with torch on Linux; elsewhere the kernels are defined but never launched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import triton
    import triton.language as tl

    jit: Callable[[Callable[..., Any]], Any] = triton.jit
    available = True
except ImportError:
    tl = None
    available = False

    def jit(function: Callable[..., Any]) -> Any:
        return function


__all__ = ["available", "jit", "tl"]
