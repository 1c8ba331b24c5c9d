"""D-VAE: pictures coded in so few nats that noise does not pay (Yu et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._errors import bad, check_count, check_number
from ..data import ImageSet
from ..train import autocast
from ._purifier import descend, initialised, padded, restored

_ROUNDING = (1 / 255) ** 2 / 12  # the variance of 8 bits: what is smaller is no error of a decoder
_HASTE = 0.1  # of the price of a nat: by how much its logarithm rises at a step of twice the rate


def vae(
    images: ImageSet,
    *,
    rate: float = 0.25,
    training_steps: int = 800,
    batch_size: int = 64,
    width: int = 32,
    latent: int = 16,
    learning_rate: float = 3e-3,
    seed: int = 0,
) -> ImageSet:
    """The pictures as a variational autoencoder tells them that was trained on them and may not say much.

    What is easiest to tell for its share in the pixels is told first, and the small noise is not. rate: the most that
    a code may take, KL(q(z | x) ‖ N(0, 1)) as the mean over a batch, in nats a pixel value: 0.25 are 196 nats for a
    grey 28 × 28 picture. What is lowered is ½ log of the mean square error (normal errors of the deviation that fits
    best) plus λ KL. The price λ of a nat starts at 1, which is the usual bound on the likelihood, rises while KL is
    above the rate, and falls while it is below, not below 1: so after enough steps KL ≤ rate, but for fluctuations. The
    code is `latent` normal variables for every 4 × 4 pixels; the result is decoded from a random code, not from its
    mean.

    training_steps: of Adam, on `batch_size` pictures each, with a `learning_rate` that falls to 0 along half a cosine.
    width: of the network at half the picture's size; it is twice as wide at a quarter. seed: decides everything.

    As in D-VAE (Yu, Wang, Xia, Yang, Lu, Tan and Kot 2024), the pictures themselves and nothing else are trained on, KL
    has a target, a random code is decoded, and the rate is that of their second stage: 3 nats for 2 × 2 pixels of three
    colours. Their first stage, of a third of that rate, is missing: there a second decoder, which is told the class,
    learns what to add to the first one's answer, and that part, the "D" for disentangled, is subtracted from the
    pictures before the second stage. Tried at 28 × 28 with networks of this size, the subtraction took nothing of MI-UE
    away. Theirs are also a fixed price above the target and none below, a ResNet-18's first blocks as the encoder,
    codes at half the picture's size, the mean square error without a logarithm, and 60 epochs a stage.

    Raises `ValueError` for an empty set and a setting out of range, `FloatingPointError` if training fails.
    """
    if len(images) == 0:
        raise bad("images", "an empty set", "at least one picture")
    check_number("rate", rate, 0, open_low=True)
    for name, count in (("batch_size", batch_size), ("width", width), ("latent", latent)):
        check_count(name, count)
    network = initialised(lambda: _VAE(images.images.shape[1], width, latent), seed, images.device)
    generator = torch.Generator(images.device).manual_seed(seed)
    price = torch.ones((), device=images.device)

    def loss() -> Tensor:
        nonlocal price
        index = torch.randint(len(images), (batch_size,), generator=generator, device=images.device)
        pictures = images.floats(index)
        decoded, nats = network(pictures, generator)
        value: Tensor = (F.mse_loss(decoded, pictures) + _ROUNDING).log() / 2 + price * nats
        price = (price * (_HASTE * (nats.detach() / rate - 1).clamp_max(1)).exp()).clamp_min(1)
        return value

    descend(network, loss, training_steps=training_steps, learning_rate=learning_rate)
    return restored(images, lambda rows: network(images.floats(rows), generator)[0], "D-VAE")


class _VAE(nn.Module):
    """Pictures `(n, C, H, W)` coded and decoded, and the mean rate of the code in nats a pixel value; both float32.

    The code is `latent` independent normals for every 4 × 4 pixels, around 0 with deviation 1 a priori.
    """

    def __init__(self, channels: int, width: int, latent: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 2, stride=2),
            _Residual(2 * width),
            _Residual(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * latent, 1),
        )
        self.decode = nn.Sequential(
            nn.Conv2d(latent, 2 * width, 3, padding=1),
            _Residual(2 * width),
            _Residual(2 * width),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        whole = padded(pictures, 4).contiguous(memory_format=torch.channels_last)
        with autocast(pictures.device):
            mean, log_variance = self.encode(whole).float().chunk(2, 1)
            noise = torch.randn(mean.shape, generator=generator, device=mean.device)
            decoded = self.decode(mean + (log_variance / 2).exp() * noise)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum() / 2  # KL(code ‖ prior)
        return decoded[..., : pictures.shape[2], : pictures.shape[3]].float(), divergence / pictures.numel()


class _Residual(nn.Module):
    """A residual block, which at first changes nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.two.weight)

    def forward(self, values: Tensor) -> Tensor:
        changed: Tensor = values + self.two(F.relu(self.one(F.relu(values))))
        return changed
