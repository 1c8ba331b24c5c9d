"""Arguments of the theory, in float64 or refused."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._errors import bad


def float64(argument: str, value: float | Tensor, expected: str) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise bad(argument, repr(value), expected) from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise bad(argument, tensor.dtype, expected)
    return tensor.to(torch.float64)


def elements(argument: str, value: float | Tensor, expected: str, allowed: Callable[[Tensor], Tensor]) -> Tensor:
    """`value` in float64 if all its elements are allowed, which NaN never is."""
    numbers = float64(argument, value, expected)
    wrong = numbers[~allowed(numbers)]
    if wrong.numel():
        raise bad(argument, f"{float(wrong.flatten()[0]):.6g}", expected)
    return numbers


def directions(argument: str, value: Tensor) -> Tensor:
    rows = float64(argument, value, "a matrix with one direction a row")
    if rows.ndim != 2 or not rows.numel():
        raise bad(argument, f"shape {tuple(rows.shape)}", "a matrix with one direction a row")
    lengths = rows.norm(dim=1)
    if not (lengths.isfinite() & (lengths > 0)).all():
        raise bad(argument, "a row that is zero or not finite", "rows that point somewhere")
    return rows


def covariance_and_factor(value: float | Tensor) -> tuple[Tensor, Tensor]:
    """A covariance matrix in float64 (of a number, 1 × 1), and its lower Cholesky factor."""
    sigma = float64("covariance", value, "a covariance matrix (d, d)")
    sigma = sigma.reshape(1, 1) if sigma.ndim == 0 else sigma
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1] or not len(sigma):
        raise bad("covariance", f"shape {tuple(sigma.shape)}", "a square matrix (d, d)")
    if not sigma.isfinite().all():
        raise bad("covariance", "NaN or infinite entries", "finite numbers")
    # A covariance computed in float32 may differ from its transpose in the last digits.
    if not torch.allclose(sigma, sigma.T, rtol=0, atol=1e-5 * float(sigma.abs().max())):
        raise bad("covariance", "a matrix that differs from its transpose", "a symmetric matrix")
    sigma = (sigma + sigma.T) / 2
    factor, failed = torch.linalg.cholesky_ex(sigma)
    if failed:
        least = float(torch.linalg.eigvalsh(sigma)[0])
        raise bad("covariance", f"a matrix whose least eigenvalue is {least:.3g}", "a positive definite matrix")
    return sigma, factor


def log_det_of(factor: Tensor) -> Tensor:
    logs: Tensor = factor.diagonal().log()
    return 2 * logs.sum()
