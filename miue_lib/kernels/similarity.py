"""The class-similarity loss of MI-UE (Zhu, Miao, Dong and Gao 2026), in memory that grows with B, not B².

For features g_1 … g_B of a batch with labels y, cosines c_jk and temperature τ, the loss of anchor j is

    ℓ_j = ω · [log Σ_k exp(c_jk/τ) − log Σ_{k: y_k = y_j} exp(c_jk/τ)]
          + ζ · log(1 + Σ_{k: y_k = y_j} ‖g_j − g_k‖₂ / d),

and the loss is the mean over anchors. The first line is small when every picture of a class points the same way and
the other classes point elsewhere; the second when a class is also close together. The paper's ω is 1; with ω or ζ at
0 one of the two acts alone, as in its ablation.

*Value.* With s_jk = c_jk/τ, sum over the own class and over the others apart from each other, as logarithms:

    C_j = log Σ_own exp(s_jk),     O_j = log Σ_other exp(s_jk),     first line = ω · log(1 + exp(O_j − C_j)).

Nothing overflows, and a loss near 0 keeps its digits, which the difference of two nearly equal logarithms would lose.
If the denominator holds the other classes only, the first line is ω · (O_j − C_j).

*Gradient.* With w_j = exp(O_j) / (exp(O_j) + exp(C_j)), or 1 if the denominator holds the other classes only,

    ∂ℓ_j/∂s_jk = ω w_j exp(s_jk − O_j) for another class,     −ω w_j exp(s_jk − C_j) for the own one.

A pair's score counts for both of its anchors, and so does its distance. So, with unit vectors u,
β_j = log w_j − O_j, γ_j = log w_j − C_j, and α_j = ζ / (d + D_j), where D_j is anchor j's sum of distances, B times
the gradient is made of

    B ∂L/∂u_j = ω Σ_k W_jk u_k / τ,        W_jk = exp(s_jk + β_j) + exp(s_jk + β_k), or −(the same with γ) in a class,
    B ∂L/∂g_j = Σ_k V_jk (g_j − g_k),      V_jk = (α_j + α_k) / ‖g_j − g_k‖ in a class (the distance term's part),

of which the first passes through u = g/‖g‖: (I − u uᵀ)/‖g‖. W_jj u_j passes as 0, and is left out. ω multiplies what
has passed, so that no tile need know it.

*Memory.* The forward pass keeps β, γ and α, three numbers an anchor (on a CPU also the scores, of a small batch); the
backward pass forms W and V again, tile by tile, as FlashAttention does (Dao 2022), so that no B × B matrix need exist.
On a GPU a tile's sums join those of the tiles before it by the online log-sum-exp (Milakov and Gimelshein 2018). On a
CPU a tile is as wide as the batch; that takes 128 numbers an anchor. The batch is sorted by label, so that a class is
a range of columns: distances then cost Σ n_c² d for classes of n_c pictures, not B² d.

*Precision.* Sums and logarithms are float32, or float64 for float64 features. Features in half precision are
multiplied as they are: TF32 holds them exactly, and a float32 the product of two, so that tensor cores lose nothing.
What must not be rounded to half precision are unit vectors, of which a nearly collapsed class would lose half of what
tells its members apart, and the features relative to their class's mean, from which distances come. These distances
do not tell apart pairs closer than √(2ε) of their distance from that mean, 5·10⁻⁴ in float32. On a GPU the mean is
added up in no fixed order: with a distance term, last bits vary unless `torch.use_deterministic_algorithms` is on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .._errors import bad, check_number
from ._triton import available, jit, tl

_ROWS = 128  # anchors in a tile of the torch path
_KEPT = 1024  # the torch path keeps the scores of a batch up to this size, 4 MB, for the backward pass
_BLOCK = 64  # anchors, and columns, in a tile of the GPU's
_CHUNK, _WARPS = 16, 8  # coordinates that it multiplies at once; more of them, or fewer warps, spill registers
_PROGRAMS = 256  # to this number the GPU divides the columns too: with rows alone, a small batch would leave it idle
_SHORTEST = 1e-12  # a vector shorter than this is divided by it instead of its length, as by `F.normalize`


def similarity_loss(
    features: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.1,
    distance_weight: float = 0.0,
    similarity_weight: float = 1.0,
    self_pairs: bool = True,
    other_classes_only: bool = False,
) -> Tensor:
    """The loss above, a scalar in nats, differentiable in `features` once; computed in float32 or wider.

    features: floating point `(B, d)`; labels: whole numbers `(B,)`.
    temperature: τ > 0. distance_weight: ζ ≥ 0 (the paper's text: 0.1; its released code: 0).
    similarity_weight: ω ≥ 0 (the paper: 1).
    self_pairs: whether a picture counts among its own class (the released code: yes). Without them an anchor whose
        class has no other picture in the batch has nothing to be similar to, and is refused.
    other_classes_only: take the denominator over the other classes only, as the paper's text is reported to,
        instead of over the whole batch, as the released code does.

    Raises `ValueError` for features that are not 2-D, labels that do not match, or fewer than two classes.
    """
    check_weights(temperature, distance_weight, similarity_weight)
    if features.ndim != 2 or not features.is_floating_point():
        raise bad("features", f"shape {tuple(features.shape)} {features.dtype}", "a floating-point (B, d) matrix")
    if labels.shape != features.shape[:1]:
        raise bad("labels", f"shape {tuple(labels.shape)}", f"one label a row: ({len(features)},)")
    counts = torch.unique(labels, return_counts=True)[1]
    if len(counts) < 2:
        raise bad("labels", "one class only", "a batch of at least two classes")
    if not self_pairs and int(counts.min()) == 1:
        raise bad("labels", "a class with one picture in the batch", "two or more of each class, or self_pairs=True")
    return unchecked(features, labels, temperature, distance_weight, similarity_weight, self_pairs, other_classes_only)


def check_weights(temperature: float, distance_weight: float, similarity_weight: float) -> None:
    """Raise `ValueError` unless τ > 0, ζ ≥ 0 and ω ≥ 0."""
    check_number("temperature", temperature, 0, open_low=True)
    check_number("distance_weight", distance_weight, 0)
    check_number("similarity_weight", similarity_weight, 0)


def unchecked(
    features: Tensor,
    labels: Tensor,
    temperature: float,
    distance_weight: float,
    similarity_weight: float = 1.0,
    self_pairs: bool = True,
    other_classes_only: bool = False,
) -> Tensor:
    """`similarity_loss` for loops that have checked their batches: a GPU is never waited for.

    Of a batch of one class, the first line of the loss is 0 and has no gradient. With `other_classes_only` it is −∞,
    the logarithm of an empty sum, with the gradient of the own class's part; with ω = 0 there is no first line.
    """
    options = _Options(temperature, distance_weight, similarity_weight, self_pairs, other_classes_only)
    loss: Tensor = _Similarity.apply(features, labels, options)
    return loss


def reference(
    features: Tensor,
    labels: Tensor,
    temperature: float,
    distance_weight: float,
    similarity_weight: float = 1.0,
    self_pairs: bool = True,
    other_classes_only: bool = False,
) -> Tensor:
    """The same in plain PyTorch, with matrices of B × B."""
    g = features.to(_wide(features))
    same = labels[:, None] == labels[None, :]
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    directions = F.normalize(g, eps=_SHORTEST)
    scores = directions @ directions.T / temperature
    everyone = ~same if other_classes_only else torch.ones_like(same) if self_pairs else others
    own = same if self_pairs else same & others
    loss = torch.zeros_like(scores[:, 0])
    if similarity_weight:  # without it the first line does not count, even where it is infinite
        loss = similarity_weight * (_masked_logsumexp(scores, everyone) - _masked_logsumexp(scores, own))
    if distance_weight:
        distances = _distances(g, same).masked_fill(~(same & others), 0)
        loss = loss + distance_weight * torch.log1p(distances.sum(1) / g.shape[1])
    return loss.mean()


def _masked_logsumexp(scores: Tensor, keep: Tensor) -> Tensor:
    return scores.masked_fill(~keep, -torch.inf).logsumexp(1)


def _distances(g: Tensor, same: Tensor) -> Tensor:
    """‖g_j − g_k‖₂ for pairs of one class, by one matrix product: ‖u − v‖² = ‖u‖² + ‖v‖² − 2 u·v.

    That cancels badly where u and v are large and near each other, so each class is first moved to its mean, which
    changes no distance within it. Squares below the rounding error left (of duplicates, say) are held at it.
    """
    share = same.to(g.dtype)
    centred = g - (share @ g.detach()) / share.sum(1, keepdim=True)
    squares = centred.square().sum(1)
    both = squares[:, None] + squares[None, :]
    least = both.detach() * torch.finfo(g.dtype).eps + torch.finfo(g.dtype).tiny
    return torch.maximum(both - 2 * centred @ centred.T, least).sqrt()


def _wide(features: Tensor) -> torch.dtype:
    """What sums are computed in."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


# The function that chooses, and what both paths share


class _Options(NamedTuple):
    temperature: float
    distance_weight: float
    similarity_weight: float
    self_pairs: bool
    other_classes_only: bool


class _Batch(NamedTuple):
    """A batch sorted by label. The class of row j is the rows from `first[j]` up to `last[j]`, which is not in it."""

    g: Tensor  # (B, d)
    scale: Tensor  # (B,): 1/‖g_j‖
    first: Tensor  # (B,) int64
    last: Tensor  # (B,) int64
    centred: Tensor | None  # (B, d): g less its class's mean; None without a distance term
    squares: Tensor | None  # (B,): ‖centred_j‖²


def _in_triton(features: Tensor) -> bool:
    return features.is_cuda and available and features.dtype != torch.float64


class _Similarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, labels: Tensor, options: _Options) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            in_triton = _in_triton(features)
            order = labels.argsort(stable=True)
            batch = _sorted(features if in_triton else features.to(_wide(features)), labels, order, options)
            scores = None
            if in_triton:
                own, other, spread = _triton_forward(batch, options)
            else:
                keep = len(features) <= _KEPT and ctx.needs_input_grad[0]
                own, other, spread, scores = _torch_forward(batch, options, keep)
            # log(1 + exp(O − C)), and log w
            loss, share = -F.logsigmoid(own - other), F.logsigmoid(other - own)
            if options.other_classes_only:
                loss, share = other - own, torch.zeros_like(own)
            # Of one class alone that is −∞, which times 0 would be NaN.
            loss = options.similarity_weight * loss if options.similarity_weight else torch.zeros_like(own)
            if options.distance_weight:
                loss = loss + options.distance_weight * torch.log1p(spread / features.shape[1])
            alpha = options.distance_weight / (features.shape[1] + spread)
            ctx.options, ctx.in_triton, ctx.dtype = options, in_triton, features.dtype
            ctx.save_for_backward(order, share - other, share - own, alpha, scores, *batch)
            return loss.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        order, beta, gamma, alpha, scores, *saved = ctx.saved_tensors
        batch = _Batch(*saved)
        with torch.autocast(order.device.type, enabled=False):
            if ctx.in_triton:
                turn, move = _triton_backward(batch, ctx.options, beta, gamma, alpha)
            else:
                turn, move = _torch_backward(batch, ctx.options, beta, gamma, alpha, scores)
            # ∂/∂u becomes ∂/∂g. What `_SHORTEST` divides is scaled by a constant, so nothing is projected out.
            u = batch.g * batch.scale[:, None]
            along = (u * turn).sum(1).masked_fill(batch.scale > 0.999 / _SHORTEST, 0)
            turn.sub_(u.mul_(along[:, None])).mul_(ctx.options.similarity_weight * batch.scale[:, None])
            if move is not None:
                turn += move
            gradient = torch.empty_like(turn)
            gradient[order] = turn.mul_(upstream / len(order))
            return gradient.to(ctx.dtype), None, None


def _sorted(features: Tensor, labels: Tensor, order: Tensor, options: _Options) -> _Batch:
    g, y = features[order], labels[order]
    wide = g.to(_wide(g))
    scale = 1 / wide.norm(dim=1).clamp_min(_SHORTEST)
    first, last = torch.searchsorted(y, y), torch.searchsorted(y, y, right=True)
    if not options.distance_weight:
        return _Batch(g, scale, first, last, None, None)
    # A class's sum is kept in the row of its first member. It need not be exact: any vector near the class would do.
    sums = torch.zeros_like(wide).index_add_(0, first, wide)
    centred = wide - sums.div_((last - first)[:, None])[first]
    return _Batch(g, scale, first, last, centred, centred.square().sum(1))


# Plain torch: the CPU, float64, and devices that Triton does not know


def _torch_forward(batch: _Batch, options: _Options, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """C, O and D `(B,)`, and the scores `(B, B)` if they are to be kept."""
    u = batch.g * batch.scale[:, None]
    own, other, spread = (torch.zeros_like(batch.scale) for _ in range(3))
    kept = u.new_empty(len(u), len(u)) if keep else None
    for rows, band, same, pairs in _tiles(batch):
        scores = (u[rows] @ u.T).div_(options.temperature)
        if kept is not None:
            kept[rows] = scores
        counted = same if options.self_pairs else pairs
        own[rows] = scores[:, band].masked_fill(~counted, -torch.inf).logsumexp(1)
        scores[:, band].masked_fill_(same, -torch.inf)
        other[rows] = scores.logsumexp(1)
        if options.distance_weight:
            squares, least = _squares(batch, rows, band)
            spread[rows] = torch.maximum(squares, least).sqrt_().masked_fill_(~pairs, 0).sum(1)
    return own, other, spread, kept


def _torch_backward(
    batch: _Batch, options: _Options, beta: Tensor, gamma: Tensor, alpha: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Σ_k W_jk u_k / τ and Σ_k V_jk (g_j − g_k), `(B, d)` each, the second only with a distance term."""
    u = batch.g * batch.scale[:, None]
    turn = torch.empty_like(u)
    move = torch.empty_like(u) if batch.centred is not None else None
    for rows, band, same, pairs in _tiles(batch):
        scores = kept[rows] if kept is not None else (u[rows] @ u.T).div_(options.temperature)
        near = scores[:, band]
        within = (near + gamma[rows, None]).exp_().add_((near + gamma[band]).exp_())
        weights = (scores + beta[rows, None]).exp_().add_((scores + beta).exp_())
        weights[:, band].masked_fill_(same, 0).sub_(within.masked_fill_(~pairs, 0))
        turn[rows] = (weights @ u).div_(options.temperature)
        if batch.centred is not None and move is not None:
            squares, least = _squares(batch, rows, band)
            pull = (alpha[rows, None] + alpha[band]) * squares.rsqrt()
            pull.masked_fill_(~pairs | (squares <= least), 0)
            move[rows] = pull.sum(1)[:, None] * batch.centred[rows] - pull @ batch.centred[band]
    return turn, move


def _tiles(batch: _Batch) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """The rows of each tile, a band of columns that holds their classes, and masks for the band.

    The masks: columns of a row's class, and the same without the row itself. Only the CPU takes a narrow band:
    to know it, it reads `first` and `last`, and another device would have to be waited for.
    """
    n = len(batch.g)
    columns = torch.arange(n, device=batch.g.device)
    for start in range(0, n, _ROWS):
        rows, band = slice(start, min(start + _ROWS, n)), slice(0, n)
        if columns.device.type == "cpu":
            band = slice(int(batch.first[start]), int(batch.last[rows.stop - 1]))
        same = (columns[band] >= batch.first[rows, None]) & (columns[band] < batch.last[rows, None])
        yield rows, band, same, same & (columns[band] != columns[rows, None])


def _squares(batch: _Batch, rows: slice, band: slice) -> tuple[Tensor, Tensor]:
    """‖g_j − g_k‖² within a class as in `_distances`, and the rounding error below which it says nothing."""
    assert batch.centred is not None and batch.squares is not None
    both = batch.squares[rows, None] + batch.squares[band]
    limits = torch.finfo(both.dtype)
    squares = torch.addmm(both, batch.centred[rows], batch.centred[band].T, alpha=-2)
    return squares, both.mul_(limits.eps).add_(limits.tiny)


# GPU


def _triton_forward(batch: _Batch, options: _Options) -> tuple[Tensor, Tensor, Tensor]:
    """C, O and D `(B,)`."""
    n, d = batch.g.shape
    grid, width = _grid(n)
    own, other, spread = torch.zeros(3, grid[1], n, dtype=torch.float32, device=batch.g.device)
    _forward_kernel[grid](
        *_pointers(batch), own, other, spread, n, d, width, 1 / options.temperature,
        SELF=options.self_pairs, DISTANCES=batch.centred is not None, PRECISION=_precision(batch.g),
        BLOCK=_BLOCK, CHUNK=_CHUNK, num_warps=_WARPS,
    )  # fmt: skip
    return own.logsumexp(0), other.logsumexp(0), spread.sum(0)


def _triton_backward(
    batch: _Batch, options: _Options, beta: Tensor, gamma: Tensor, alpha: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Σ_k W_jk u_k / τ and Σ_k V_jk (g_j − g_k), `(B, d)` each, the second only with a distance term."""
    n, d = batch.g.shape
    grid, width = _grid(n)
    turn = torch.zeros(grid[1], n, d, dtype=torch.float32, device=batch.g.device)
    move = torch.zeros_like(turn) if batch.centred is not None else None
    _backward_kernel[grid](
        *_pointers(batch), beta, gamma, alpha, turn, turn if move is None else move, n, d, width,
        1 / options.temperature, DISTANCES=move is not None, PRECISION=_precision(batch.g),
        BLOCK=_BLOCK, CHUNK=_CHUNK, num_warps=_WARPS,
    )  # fmt: skip
    return turn.sum(0), None if move is None else move.sum(0)


def _grid(n: int) -> tuple[tuple[int, int], int]:
    """Programs for blocks of rows times shares of the columns, and how many columns are a share."""
    blocks = -(-n // _BLOCK)
    width = -(-blocks // max(1, _PROGRAMS // blocks))
    return (blocks, -(-blocks // width)), width * _BLOCK


def _pointers(batch: _Batch) -> tuple[Tensor, ...]:
    """What both kernels read; without a distance term, something in place of what they then do not."""
    centred, squares = (batch.scale if part is None else part for part in (batch.centred, batch.squares))
    return batch.g, batch.scale, batch.first, batch.last, centred, squares


def _precision(g: Tensor) -> str:
    """How tensor cores may read features without rounding any: see *Precision* above."""
    return "ieee" if g.dtype == torch.float32 else "tf32"


@jit
def _forward_kernel(  # type: ignore[no-untyped-def]
    g, scale, first, last, centred, squares, own, other, spread, n, d, width, sharpness,
    SELF: tl.constexpr, DISTANCES: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
) -> Any:  # fmt: skip
    """Of BLOCK anchors and `width` columns: the logarithms of sums, and the sums of distances."""
    start = tl.program_id(1) * width
    stop = tl.minimum(start + width, n)
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    from_j, to_j = tl.load(first + j, mask=j < n, other=0), tl.load(last + j, mask=j < n, other=0)
    scale_j = tl.load(scale + j, mask=j < n, other=0.0) * sharpness
    # The greatest score so far, and the sum of exponentials relative to it. No score is as low as the first of them.
    own_most, other_most = tl.full([BLOCK], -1e30, tl.float32), tl.full([BLOCK], -1e30, tl.float32)
    own_sum, other_sum = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for begin in range(start, stop, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        scores = _products(g, j, k, n, d, PRECISION, BLOCK, CHUNK) * scale_j[:, None]
        scores *= tl.load(scale + k, mask=k < n, other=0.0)[None, :]
        same = (k[None, :] >= from_j[:, None]) & (k[None, :] < to_j[:, None])
        counted = same
        if not SELF:
            counted = same & (k[None, :] != j[:, None])
        own_most, own_sum = _join(own_most, own_sum, scores, counted)
        other_most, other_sum = _join(other_most, other_sum, scores, (same ^ True) & (k < n)[None, :])
    here = tl.program_id(1).to(tl.int64) * n + j
    tl.store(own + here, own_most + tl.log(own_sum), mask=j < n)
    tl.store(other + here, other_most + tl.log(other_sum), mask=j < n)
    if DISTANCES:
        total = tl.zeros([BLOCK], tl.float32)
        begin, end = _band(first, last, start, stop, n, BLOCK)
        for k0 in range(begin, end, BLOCK):
            k = k0 + tl.arange(0, BLOCK)
            apart, least = _apart(centred, squares, j, k, n, d, BLOCK, CHUNK)
            pairs = (k[None, :] >= from_j[:, None]) & (k[None, :] < to_j[:, None]) & (k[None, :] != j[:, None])
            pairs = pairs & (k < end)[None, :]
            total += tl.sum(tl.where(pairs, tl.sqrt(tl.maximum(apart, least)), 0.0), 1)
        tl.store(spread + here, total, mask=j < n)


@jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    g, scale, first, last, centred, squares, beta, gamma, alpha, turn, move, n, d, width, sharpness,
    DISTANCES: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
) -> Any:  # fmt: skip
    """Of BLOCK anchors and `width` columns: Σ_k W_jk u_k / τ and Σ_k V_jk (g_j − g_k), added to `turn` and `move`.

    Those are too wide for registers. No other program touches what this one adds to, so that plain loads and stores
    do, and additions have a fixed order.
    """
    start = tl.program_id(1) * width
    stop = tl.minimum(start + width, n)
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    from_j, to_j = tl.load(first + j, mask=j < n, other=0), tl.load(last + j, mask=j < n, other=0)
    scale_j = tl.load(scale + j, mask=j < n, other=0.0) * sharpness
    beta_j, gamma_j = tl.load(beta + j, mask=j < n, other=0.0), tl.load(gamma + j, mask=j < n, other=0.0)
    for begin in range(start, stop, BLOCK):
        k = begin + tl.arange(0, BLOCK)
        scale_k = tl.load(scale + k, mask=k < n, other=0.0)
        beta_k, gamma_k = tl.load(beta + k, mask=k < n, other=0.0), tl.load(gamma + k, mask=k < n, other=0.0)
        scores = _products(g, j, k, n, d, PRECISION, BLOCK, CHUNK) * scale_j[:, None] * scale_k[None, :]
        within = tl.exp(scores + gamma_j[:, None]) + tl.exp(scores + gamma_k[None, :])
        across = tl.exp(scores + beta_j[:, None]) + tl.exp(scores + beta_k[None, :])
        same = (k[None, :] >= from_j[:, None]) & (k[None, :] < to_j[:, None])
        weights = tl.where(same, -within, across)
        weights = tl.where((k[None, :] != j[:, None]) & (k < n)[None, :], weights, 0.0)
        _add_weighted(turn, g, weights * (scale_k * sharpness)[None, :], j, k, n, d, False, BLOCK, CHUNK)
    if DISTANCES:
        alpha_j = tl.load(alpha + j, mask=j < n, other=0.0)
        begin, end = _band(first, last, start, stop, n, BLOCK)
        for k0 in range(begin, end, BLOCK):
            k = k0 + tl.arange(0, BLOCK)
            apart, least = _apart(centred, squares, j, k, n, d, BLOCK, CHUNK)
            pairs = (k[None, :] >= from_j[:, None]) & (k[None, :] < to_j[:, None]) & (k[None, :] != j[:, None])
            pairs = pairs & (k < end)[None, :]
            far = pairs & (apart > least)
            both = alpha_j[:, None] + tl.load(alpha + k, mask=k < n, other=0.0)[None, :]
            pull = tl.where(far, both / tl.sqrt(tl.where(far, apart, 1.0)), 0.0)
            _add_weighted(move, centred, -pull, j, k, n, d, True, BLOCK, CHUNK)


@jit
def _products(  # type: ignore[no-untyped-def]
    x, j, k, n, d, PRECISION: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr
):
    """x_j · x_k, summed in float32."""
    total = tl.zeros([BLOCK, BLOCK], tl.float32)
    for at in range(0, d, CHUNK):
        x_j, x_k = _rows(x, j, at, n, d, CHUNK), _rows(x, k, at, n, d, CHUNK)
        total = tl.dot(x_j, tl.trans(x_k), total, input_precision=PRECISION)
    return total


@jit
def _rows(x, rows, at, n, d, CHUNK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Coordinates from `at` on of these rows in float32, 0 beyond the last of either."""
    c = at + tl.arange(0, CHUNK)
    where = x + rows[:, None].to(tl.int64) * d + c[None, :]
    return tl.load(where, mask=(rows < n)[:, None] & (c < d)[None, :], other=0.0).to(tl.float32)


@jit
def _join(most, total, scores, keep):  # type: ignore[no-untyped-def]
    """The greatest score and the sum of exponentials relative to it, after the scores that `keep` marks."""
    scores = tl.where(keep, scores, float("-inf"))
    greatest = tl.maximum(most, tl.max(scores, 1))
    return greatest, total * tl.exp(most - greatest) + tl.sum(tl.exp(scores - greatest[:, None]), 1)


@jit
def _band(first, last, start, stop, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where, between two columns, the columns begin and end that hold the classes of this program's rows."""
    j = tl.program_id(0) * BLOCK
    begin = tl.load(first + j).to(tl.int32)
    end = tl.load(last + tl.minimum(j + BLOCK, n) - 1).to(tl.int32)
    return tl.maximum(start, begin), tl.minimum(stop, end)


@jit
def _apart(centred, squares, j, k, n, d, BLOCK: tl.constexpr, CHUNK: tl.constexpr):  # type: ignore[no-untyped-def]
    """‖g_j − g_k‖² within a class as in `_distances`, and the rounding error below which it says nothing."""
    both = tl.load(squares + j, mask=j < n, other=0.0)[:, None] + tl.load(squares + k, mask=k < n, other=0.0)[None, :]
    # The constants are float32's eps and tiny.
    return both - 2 * _products(centred, j, k, n, d, "ieee", BLOCK, CHUNK), both * 1.1920929e-07 + 1.1754944e-38


@jit
def _add_weighted(  # type: ignore[no-untyped-def]
    target, x, weights, j, k, n, d, OWN: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr
):
    """Add Σ_k weights_jk x_k, or with OWN Σ_k weights_jk (x_k − x_j), to the rows j of this program's share."""
    target += tl.program_id(1).to(tl.int64) * n * d
    totals = tl.sum(weights, 1)
    for at in range(0, d, CHUNK):
        c = at + tl.arange(0, CHUNK)
        new = tl.dot(weights, _rows(x, k, at, n, d, CHUNK), input_precision="ieee")
        if OWN:
            new -= totals[:, None] * _rows(x, j, at, n, d, CHUNK)
        where = target + j[:, None].to(tl.int64) * d + c[None, :]
        inside = (j < n)[:, None] & (c < d)[None, :]
        tl.store(where, tl.load(where, mask=inside, other=0.0) + new, mask=inside)
    tl.debug_barrier()  # other threads of this program may add to the same numbers next
