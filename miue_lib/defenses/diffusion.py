"""AVATAR: pictures drowned in Gaussian noise and brought back by a diffusion model (Dolatabadi et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..train import autocast
from ._purifier import descend, initialised, padded, restored

_SLOWEST, _FASTEST = 0.1, 20.0  # β(0) and β(1), at which the noise is let in (Ho et al. 2020, Song et al. 2021)
_WAVES = 8  # frequencies in which the network is told the time


def diffusion(
    images: ImageSet,
    *,
    prior: ImageSet | None = None,
    time: float = 0.1,
    steps: int = 3,
    training_steps: int = 800,
    batch_size: int = 64,
    width: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> ImageSet:
    """The pictures after diffusion to `time` and back: noise that is small beside what was added is drowned in it.

    prior: the pictures that the diffusion model is trained on; None: `images` themselves, which may be all that a
    victim has, but of which the noise is a part, that the model learns with the rest. time: how far the diffusion goes,
    in (0, 1]: a picture x, with values in [−1, 1], becomes x_t = α x + σ ε, where ε is normal, t = `time`,
    log α = −t/20 − 4.975 t² and σ² = 1 − α². In pixel values in [0, 1] that is noise of the standard deviation σ/2α:
    0.09 at 0.05, 0.17 at 0.1, 0.36 at 0.2. The network, which predicts ε (Ho, Jain and Abbeel 2020), then leads x_t to
    t = 0 in `steps` equal steps of DDIM (Song, Meng and Ermon 2021), without further noise. A single step estimates the
    mean E[x | x_t]: of all estimates the nearest to x on average, and the smoothest.

    training_steps: of Adam, on `batch_size` pictures each, with a `learning_rate` that falls to 0 along half a cosine.
    width: of the network at half the picture's size; it is twice as wide at a quarter. seed: decides everything.

    Dolatabadi, Erfani and Leckie (2023) purify with large models, trained at length on clean pictures, and simulate the
    reverse stochastic differential equation, as Nie, Guo, Huang, Xiao, Vahdat and Anandkumar (2022) do against
    adversarial examples. The schedule of α is theirs. The steps without noise, a network of some 200,000 weights, and
    that it is trained for the times up to `time` only, so that it could not invent a picture from nothing, are this
    library's: they fit a processor.

    Raises `ValueError` for an empty set, a prior of other shapes and a setting out of range, and `FloatingPointError`
    if the training fails.
    """
    if len(images) == 0:
        raise bad("images", "an empty set", "at least one picture")
    prior = images if prior is None else prior.to(images.device)
    if len(prior) == 0 or prior.images.shape[1:] != images.images.shape[1:]:
        raise bad("prior", f"pictures {tuple(prior.images.shape)}", f"some of {tuple(images.images.shape[1:])} pixels")
    check_number("time", time, 0, 1, open_low=True)
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    check_count("width", width)
    network = initialised(lambda: _UNet(images.images.shape[1], width, time), seed, images.device)
    generator = torch.Generator(images.device).manual_seed(seed)

    def error() -> Tensor:
        """Of the predicted ε, squared, at random times of random pictures."""
        index = torch.randint(len(prior), (batch_size,), generator=generator, device=images.device)
        times = time * torch.rand(batch_size, generator=generator, device=images.device)
        noise = torch.randn((batch_size, *prior.images.shape[1:]), generator=generator, device=images.device)
        signal, spread = (level[:, None, None, None] for level in _levels(times))
        return F.mse_loss(network(signal * (2 * prior.floats(index) - 1) + spread * noise, times), noise)

    def back(rows: slice) -> Tensor:
        pictures = 2 * images.floats(rows) - 1
        times = torch.linspace(time, 0, steps + 1, device=images.device)
        signal, spread = _levels(times)
        noise = torch.randn(pictures.shape, generator=generator, device=images.device)
        pictures = signal[0] * pictures + spread[0] * noise
        for now in range(steps):
            noise = network(pictures, times[now].expand(len(pictures)))
            clean = ((pictures - spread[now] * noise) / signal[now]).clamp(-1, 1)
            pictures = signal[now + 1] * clean + spread[now + 1] * noise
        return (pictures + 1) / 2

    descend(network, error, training_steps=training_steps, learning_rate=learning_rate)
    return restored(images, back, "diffusion")


def _levels(times: Tensor) -> tuple[Tensor, Tensor]:
    """α and σ at times in [0, 1]: what is left of the picture, and the noise beside it; α² + σ² = 1."""
    log_signal = -(_SLOWEST * times + (_FASTEST - _SLOWEST) * times.square() / 2) / 2  # −½ ∫ β
    return log_signal.exp(), (-torch.expm1(2 * log_signal)).sqrt()


class _UNet(nn.Module):
    """ε predicted from a noisy picture `(n, C, H, W)` and its time `(n,)`, in float32.

    2 × 2 pixels are folded into channels, as in the library's small classifiers; there is one halving besides.
    """

    def __init__(self, channels: int, width: int, time: float) -> None:
        super().__init__()
        self.time = time
        told = 2 * width
        self.clock = nn.Sequential(nn.Linear(2 * _WAVES, told), nn.SiLU(), nn.Linear(told, told), nn.SiLU())
        self.first = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.above = nn.ModuleList([_Timed(width, told), _Timed(width, told)])
        self.down = nn.Conv2d(width, 2 * width, 2, stride=2)
        self.below = nn.ModuleList([_Timed(2 * width, told), _Timed(2 * width, told)])
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Conv2d(width, 4 * channels, 3, padding=1)

    def forward(self, pictures: Tensor, times: Tensor) -> Tensor:
        height, width = pictures.shape[2:]
        waves = times[:, None] / self.time * math.pi * torch.arange(1, _WAVES + 1, device=times.device)
        with autocast(pictures.device):
            told = self.clock(torch.cat([waves.sin(), waves.cos()], 1))
            folded = F.pixel_unshuffle(padded(pictures, 4), 2).contiguous(memory_format=torch.channels_last)
            high = self.above[0](self.first(folded), told)
            low = self.down(high)
            for block in self.below:
                low = block(low, told)
            high = self.above[1](high + self.up(low), told)
            noise = F.pixel_shuffle(self.last(F.relu(high)), 2)
        return noise[..., :height, :width].float()


class _Timed(nn.Module):
    """A residual block that the time scales and shifts; at first it changes nothing."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        self.change = nn.Linear(told, 2 * width)
        for layer in (self.two, self.change):
            nn.init.zeros_(layer.weight)

    def forward(self, values: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.change(told)[:, :, None, None].chunk(2, 1)
        inner = self.one(F.relu(values)) * (1 + scale) + shift
        changed: Tensor = values + self.two(F.relu(inner))
        return changed
