"""MI-UE as its released code computes it, restated from a description: the peer of `benchmarks/craft.py`.

The same objective and settings as `miue_lib.craft("miue", …)`, written the way one first would: float32, NCHW memory,
pictures and noise on the host in a `DataLoader`, whose crop and flip take one picture at a time, a B × B × d tensor of
products, a Python loop over the batch for distances, and a backward pass that computes weight gradients nobody reads.
It shares no code with the library but the model and the containers of pictures and noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from miue_lib import ImageSet, Perturbation, build

Sample = tuple[Tensor, int, int]


def craft(
    images: ImageSet,
    *,
    surrogate: str,
    epochs: int,
    steps: int,
    step: float,
    temperature: float,
    distance_weight: float,
    batch_size: int,
    noise_batch_size: int,
    learning_rate: float,
    crop: int,
    flip: bool,
    epsilon: float = 8 / 255,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    seed: int = 0,
    workers: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Perturbation:
    """Noise for `images`, which lie on the CPU; the settings are those of `miue_lib.noise.miue.miue`.

    workers: processes of the loader that feeds the model phase.
    """
    torch.manual_seed(seed)
    model = build(surrogate, images, seed=seed).to(memory_format=torch.contiguous_format).to(device)
    optimizer = torch.optim.SGD(model.parameters(), learning_rate, momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    delta = torch.zeros(images.images.shape)  # on the host
    noisy = DataLoader(Noisy(images, delta, crop, flip), batch_size, shuffle=True, num_workers=workers)
    clean = DataLoader(Noisy(images, None, 0, False), noise_batch_size, shuffle=True)
    for epoch in range(1, epochs + 1):
        model.train()
        for pictures, labels, _ in noisy:
            loss = F.cross_entropy(model(pictures.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()

        model.eval()
        for pictures, labels, index in clean:
            pictures, labels = pictures.to(device), labels.to(device)
            for _ in range(steps):
                noise = delta[index].to(device).requires_grad_(True)
                loss = class_similarity(
                    model.features(random_views(pictures + noise, crop, flip)), labels, temperature, distance_weight
                )
                loss.backward()  # the weights' gradients with it, piling up until zero_grad
                with torch.no_grad():
                    noise = (noise - step * noise.grad.sign()).clamp(-epsilon, epsilon)
                    delta[index] = ((pictures + noise).clamp(0, 1) - pictures).cpu()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the objective became {loss.item()} in round {epoch}")
        if progress is not None:
            progress(f"round {epoch}/{epochs}: objective {loss.item():.3f}")
    return Perturbation.of(images, delta, epsilon=epsilon, method="restated", settings={"seed": seed})


class Noisy(Dataset[Sample]):
    """A picture plus its noise, through a random view; its label; its number."""

    def __init__(self, images: ImageSet, delta: Tensor | None, crop: int, flip: bool) -> None:
        self.images, self.labels, self.delta = images.images, images.labels.tolist(), delta
        views: list[nn.Module] = []
        if crop:
            views.append(transforms.RandomCrop(tuple(images.images.shape[2:]), padding=crop))
        if flip:
            views.append(transforms.RandomHorizontalFlip())
        self.view = transforms.Compose(views)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        picture = self.images[i].float() / 255
        if self.delta is not None:
            picture = self.view(picture + self.delta[i])
        return picture, self.labels[i], i


def random_views(pictures: Tensor, crop: int, flip: bool) -> Tensor:
    """A random crop and flip of each of `(n, C, H, W)`, as one gather that automatic differentiation turns around."""
    n, _, height, width = pictures.shape
    device = pictures.device
    top, left = torch.randint(0, 2 * crop + 1, (2, n, 1), device=device)
    columns = torch.arange(width, device=device).expand(n, width)
    if flip:
        columns = torch.where(torch.rand(n, 1, device=device) < 0.5, columns.flip(1), columns)
    rows, columns = top + torch.arange(height, device=device), left + columns
    padded = F.pad(pictures, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
    views = padded[torch.arange(n, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return views.permute(0, 3, 1, 2).contiguous()


def class_similarity(g: Tensor, labels: Tensor, temperature: float, distance_weight: float) -> Tensor:
    """The loss of features `(B, d)`; stores B × B × d products, and their gradients on the way back."""
    similarity = torch.exp(F.cosine_similarity(g[:, None], g[None], dim=2) / temperature)
    same = (labels[:, None] == labels[None]).float()
    loss = -torch.log((similarity * same).sum(1) / similarity.sum(1))
    if distance_weight:
        on_host = labels.cpu().numpy()
        distances = []
        for j, label in enumerate(on_host):
            partners = torch.from_numpy(np.flatnonzero(on_host == label)).to(g.device)
            distances.append(torch.norm(g[partners] - g[j], dim=1).sum() / g.shape[1])
        loss = loss + distance_weight * torch.log(1 + torch.stack(distances))
    return loss.mean()
