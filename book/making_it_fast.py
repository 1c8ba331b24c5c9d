# %% [markdown]
# # Making it fast
#
# The paper's program takes 3.6 hours of a GPU to craft MI-UE noise for CIFAR-10. Is that what the task costs, or what
# the program costs? This chapter counts the arithmetic, takes a plain program apart with a stopwatch, mends it one
# change at a time, and then asks what a long run needs besides speed. Afterwards you can
#
# - say what crafting must cost on your hardware, before you start it;
# - find out where a PyTorch loop spends its time, and which changes are worth making;
# - stop a run anywhere and go on, craft noise larger than memory, and share the work among processes.
#
# You should have read [Building MI-UE](building_miue.ipynb), whose loop is made fast here. Only the speed is at stake:
# every change of the noise step below computes the same gradient, to the precision that is stated, and that is checked
# each time. (Rounds are called `epochs` in code.)

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/making_it_fast.ipynb)

# %% tags=["setup", "hide-cell"]
# Makes this notebook ready on Colab. Where miue_lib is installed, as in your own copy of the book, nothing changes;
# torch, numpy and whatever else is already there are never reinstalled.
import importlib.metadata
import subprocess
import sys

import torch


def installed(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def pip_install(*what):
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *what], check=True)


if installed("miue_lib") != "0.1.0":
    pip_install("--no-deps", "miue_lib @ https://github.com/OWNER/REPOSITORY/archive/refs/tags/v0.1.0.zip")
needed = ["numba>=0.61", "safetensors>=0.8", "pillow>=11", "matplotlib>=3.9", "ipywidgets>=8.1", "scikit-learn>=1.5"]
if missing := [requirement for requirement in needed if not installed(requirement.split(">=")[0])]:
    pip_install(*missing)

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
    print(f"torch {torch.__version__} was left as it is, but this book is tested with 2.11 and newer.")
if not torch.cuda.is_available():
    print("No GPU: slower, but it runs. For a GPU on Colab: Runtime → Change runtime type → T4 GPU, then Run all.")

# %% tags=["parameters"]
profile = "cpu"  # "gpu" times CIFAR-10 and ResNet-18; for a fast GPU
seed = 0

# %% tags=["hide-input"]
import copy
import platform
import re
import signal
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import miue_lib as mi
from miue_lib import plots
from miue_lib.kernels import noise_step, similarity
from miue_lib.models import frozen
from miue_lib.train import autocast, precision

run = mi.profile(profile)
train, test = mi.load(run.data)
device = train.device


def stopwatch(function):
    """Seconds of one call, the GPU's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turns(functions, rounds):
    """Seconds of each of the named functions, `rounds` times, one after the other, under the same load."""
    for function in functions.values():
        function()  # compiles, allocates, fills caches
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(stopwatch(function))
    return times


cpuinfo = Path("/proc/cpuinfo")
model_name = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
where = torch.cuda.get_device_name() if device.type == "cuda" else (model_name[1] if model_name else platform.machine())
print(f"{where}, {torch.get_num_threads()} threads; torch {torch.__version__}; products in {precision(device)}")

# %% [markdown]
# ## What must be computed?
#
# Each round passes once over the pictures to train the surrogate, and `steps` times to move the noise. A training step
# needs three things of each layer: its output, the gradient of its input, and the gradient of its weights. They cost
# about the same. A noise step needs the first two only; the weights stand still. Let PyTorch count the floating-point
# operations of one picture, for the paper's network and for ours:


# %%
def operations(name, pictures):
    """Floating-point operations a picture: of one training step, and of one noise step."""
    model = mi.build(name, pictures, seed=seed).cpu()
    x = pictures.floats().cpu()
    counts = {}
    for what, inputs, weights in (("training step", False, True), ("noise step", True, False)):
        model.requires_grad_(weights)
        with FlopCounterMode(display=False) as counter:
            model(x.clone().requires_grad_(inputs)).sum().backward()
        counts[what] = counter.get_total_flops() / len(x)
    return counts


like_cifar = mi.ImageSet(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1]), tuple("0123456789"))
costs = {"resnet18 on 32 × 32": operations("resnet18", like_cifar)}
costs[f"{run.model} on {train.images.shape[2]} × {train.images.shape[3]}"] = operations(run.model, train.subset([0, 1]))
for name, cost in costs.items():
    print(f"{name:26s}" + ", ".join(f"{what} {count / 1e6:8.1f} MFLOP" for what, count in cost.items()))

cifar = costs["resnet18 on 32 × 32"]
total = 100 * 50_000 * (cifar["training step"] + 10 * cifar["noise step"])
print(f"\nMI-UE on CIFAR-10, 100 rounds of 1 + 10 passes: {total / 1e18:.3f} · 10¹⁸ operations")
for rate in (40, 150, 400):
    print(f"   at {rate:3d} · 10¹² a second: {total / (rate * 1e12) / 60:5.1f} minutes")

# %% [markdown]
# This is arithmetic, not a measurement. An H100 is said to reach some $400 \cdot 10^{12}$ operations a second in
# bfloat16 on large products; then five to six minutes are enough. The 3.6 hours that the paper reports are
# $10 \cdot 10^{12}$ a second. Whatever a program takes beyond the bound, it spends on something else, or on
# convolutions that run slower than a large product. (Operations count a multiplication and an addition as two; all but
# products and convolutions is left out.)
#
# And here? Measure how fast this machine multiplies, and say what a round over the pictures would cost if it did
# nothing but that.


# %%
def matmul_rate(dtype, n=2048 if device.type == "cpu" else 8192):
    a = torch.randn(n, n, device=device, dtype=dtype)
    return 2 * n**3 / min(in_turns({"product": lambda: a @ a}, 5)["product"])


rates = {dtype: matmul_rate(dtype) for dtype in dict.fromkeys((torch.float32, precision(device)))}
for dtype, rate in rates.items():
    print(f"{dtype!s:15s} {rate / 1e9:8.0f} · 10⁹ operations a second")
mine = costs[f"{run.model} on {train.images.shape[2]} × {train.images.shape[3]}"]
bound = rates[precision(device)] / mine["noise step"]
print(f"at that rate {run.model} would take {bound:,.0f} pictures through a noise step each second")

# %% [markdown]
# ## Where does a plain program spend its time?
#
# Here is a noise step written the way one would at first, and the way released programs do it. Pictures and noise lie
# on the host as an array; each picture is turned to floats, padded, cropped and flipped by itself. The loss is written
# as its formula reads: all pairs of features side by side, an array $B \times B \times d$, and the distance term one
# picture at a time. `backward()` fills in the gradient of everything, weights included.


# %%
def view_one_by_one(pictures, delta, view):
    """Each picture plus its noise, padded, cropped, flipped, by itself, as a data loader would."""
    seen = []
    for i in range(len(pictures)):
        x = pictures[i].float() / 255 + delta[i]
        x = F.pad(x, (view.pad,) * 4)
        top, left = int(view.dy[i]), int(view.dx[i])
        x = x[:, top : top + pictures.shape[2], left : left + pictures.shape[3]]
        seen.append(x.flip(2) if view.flip[i] else x)
    return torch.stack(seen)


def loss_as_it_reads(g, y, tau, zeta):
    same = (y[:, None] == y[None, :]).to(g.dtype)
    weights = torch.exp(F.cosine_similarity(g[:, None, :], g[None, :, :], dim=2) / tau)
    ratio = (weights * same).sum(1) / weights.sum(1)
    labels = y.cpu().numpy()
    distances = []
    for j in range(len(g)):
        mates = torch.from_numpy(np.flatnonzero((labels == labels[j]) & (np.arange(len(g)) != j))).to(g.device)
        distances.append((g[j] - g[mates]).norm(dim=1).sum() / g.shape[1])
    return (-torch.log(ratio) + zeta * torch.log1p(torch.stack(distances))).mean()


# %% [markdown]
# Take one batch of 512 pictures, as the paper does (drawn at random here), a surrogate that has been trained for an
# epoch, and time the parts: those above, and this library's, which the rest of the chapter explains. A *view* is the
# random shift and flip through which a picture is seen; its *adjoint* carries a gradient back through it. Temperature,
# weight and step are those of the profile `cpu`: $\tau = 0.2$, $\zeta = 1$, $\alpha = 1.6/255$.

# %% tags=["hide-input"]
tau, zeta, epsilon, alpha = 0.2, 1.0, 8 / 255, 1.6 / 255
surrogate = mi.build(run.model, train, seed=seed)
mi.fit(surrogate, train, epochs=1, crop=run.victim["crop"], seed=seed)
surrogate.eval()
plain_model = copy.deepcopy(surrogate).to(memory_format=torch.contiguous_format)
fast_model = frozen(surrogate)  # no weight gradients, batch normalisation folded into the convolutions

generator = torch.Generator(device).manual_seed(seed)
chosen = torch.randperm(len(train), generator=generator, device=device)[:512]
pictures, labels = train.images[chosen], train.labels[chosen]
on_host = pictures.cpu()
view = mi.View.random(len(chosen), run.victim["crop"], True, generator)
view_on_host = mi.View(view.dy.cpu(), view.dx.cpu(), view.flip.cpu(), view.pad)
delta = ((torch.rand(pictures.shape, generator=generator, device=device) * 2 - 1) * epsilon).contiguous()
delta_on_host = delta.cpu().clone()
leaf_on_host = delta_on_host.clone().requires_grad_(True)
noisy = view.noisy(pictures, delta)


def through(model, x, weights, low, channels_last):
    """Forward, and backward from a given gradient of the features."""
    x = x.detach().contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    x.requires_grad_(True)
    with autocast(device) if low else torch.autocast(device.type, enabled=False):
        g = model.features(x)
    inputs = [x, *(p for p in model.body.parameters())] if weights else [x]
    torch.autograd.grad(g, inputs, torch.ones_like(g))


def loss_alone(loss):
    g = features.detach().requires_grad_(True)
    torch.autograd.grad(loss(g), g)


def update_on_host():
    """The step on whole arrays, one operation after the other; on a GPU also the copies there and back."""
    x = on_host.float() / 255
    moved = (delta_on_host.to(device).cpu() - alpha * seen_on_host.sign()).clamp(-epsilon, epsilon)
    return (x + moved).clamp(0, 1) - x


with torch.no_grad():
    features = plain_model.features(noisy)
seen_on_host = view_one_by_one(on_host, delta_on_host, view_on_host)
scratch = delta.clone()
# Any array of the right shape does as a gradient: only the time matters.
parts = {
    "plain": {
        "view, and its adjoint": lambda: torch.autograd.grad(
            view_one_by_one(on_host, leaf_on_host, view_on_host), leaf_on_host, seen_on_host
        ),
        "model": lambda: through(plain_model, noisy, weights=True, low=False, channels_last=False),
        "loss": lambda: loss_alone(lambda g: loss_as_it_reads(g, labels, tau, zeta)),
        "update of the noise": update_on_host,
    },
    "this library": {
        "view, and its adjoint": lambda: view.adjoint(view.noisy(pictures, delta)),
        "model": lambda: through(fast_model, noisy, weights=False, low=True, channels_last=True),
        "loss": lambda: loss_alone(lambda g: similarity.unchecked(g, labels, tau, zeta)),
        "update of the noise": lambda: noise_step.noise_step(scratch, pictures, noisy, step=alpha, epsilon=epsilon),
    },
}
spent = {}
for program, pieces in parts.items():
    spent[program] = {part: statistics.median(times) for part, times in in_turns(pieces, 5).items()}

print(f"{'ms for 512 pictures':24s}" + "".join(f"{program:>15s}" for program in spent) + f"{'ratio':>9s}")
for part in spent["plain"]:
    plain_time, our_time = spent["plain"][part], spent["this library"][part]
    print(f"{part:24s}{1e3 * plain_time:15.2f}{1e3 * our_time:15.2f}{plain_time / our_time:9.1f}")
sums = [sum(parts.values()) for parts in spent.values()]
print(f"{'together':24s}{1e3 * sums[0]:15.2f}{1e3 * sums[1]:15.2f}{sums[0] / sums[1]:9.1f}")

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, rows = plt.subplots(2, 1, figsize=(7.5, 2.9), sharex=False)
    for axes, (program, pieces) in zip(rows, spent.items(), strict=True):
        left, whole = 0.0, sum(pieces.values())
        for part, duration in pieces.items():
            axes.barh([f"{program}\n{1e3 * whole:.0f} ms"], [100 * duration / whole], left=left, height=0.6, label=part)
            left += 100 * duration / whole
        axes.set_xlim(0, 100)
        axes.grid(axis="y", visible=False)
    rows[0].legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8, handlelength=1)
    rows[1].set_xlabel("share of the time of one noise step on 512 pictures (%)")
    plt.close(figure)
plots.show(
    figure, "Two bars, shares of view, model, loss and update: a plain step is mostly loss, the library's mostly model."
)
assert spent["plain"]["loss"] > spent["this library"]["loss"]
assert sums[0] > 4 * sums[1]

# %% [markdown]
# Medians of five, all with the same pictures, view and surrogate. The plain program spends most of its time on what is
# not the network. That is good news: almost none of that time is needed.

# %% [markdown]
# ## What does each change buy?
#
# Now change one thing at a time and keep what was changed. All variants answer the same question, the gradient of the
# loss with respect to the noise; its *sign* is what the step uses, so each is compared with float64, sign by sign.
#
# 1. **The loss as matrix products.** All cosines are one product of the matrix of directions with itself;
#    $\log\sum\exp$ replaces $\exp$, sum and $\log$, and the distances are another product.
# 2. **The whole batch on the device.** Pictures stay where the model is, in 8 bits; all 512 crops are one gather. (What
#    a GPU saves besides, the copies there and back, does not show on a CPU.)
# 3. **No gradient of the weights.** Nobody uses it.
# 4. **bfloat16 and channels last**, where the hardware multiplies in it (float16 on a T4). The loss stays in float32:
#    in bfloat16 the differences within a class that has nearly collapsed are rounding error.
# 5. **Batch normalisation folded** into the convolution before it. In evaluation mode it is a fixed factor and offset.
# 6. **Kernels.** Adding the noise, cropping and flipping is one pass over memory, its adjoint another, and so is the
#    loss in tiles, without its $B \times B$ matrices.


# %%
def noise_gradient(*, products=False, whole=False, lean=False, low=False, folded=False, kernels=False, wide=False):
    """d loss / d δ of the batch above; each flag is one of the changes."""
    model = fast_model if folded else lean_model if lean else wide_model if wide else plain_model
    kind = torch.float64 if wide else torch.float32
    if kernels:
        seen = view.noisy(pictures, delta).requires_grad_(True)
    elif whole:
        leaf = delta.to(kind, copy=True).requires_grad_(True)
        values = pictures.to(kind) / 255 + leaf
        padded = F.pad(values, (view.pad,) * 4)
        seen = padded[each, :, rows, columns].permute(0, 3, 1, 2)  # all 512 crops and flips are one gather
    else:
        leaf = delta_on_host.clone().requires_grad_(True)
        seen = view_one_by_one(on_host, leaf, view_on_host).to(device)
    with autocast(device) if low else torch.autocast(device.type, enabled=False):
        g = model.features(seen if low else seen.contiguous())
    if kernels:
        loss = similarity.unchecked(g, labels, tau, zeta)
    elif products:
        loss = similarity.reference(g, labels, tau, zeta)
    else:
        loss = loss_as_it_reads(g, labels, tau, zeta)
    if kernels:
        return view.adjoint(torch.autograd.grad(loss, seen)[0])
    if lean or folded:
        return torch.autograd.grad(loss, leaf)[0]
    model.zero_grad()
    loss.backward()
    return leaf.grad


each = torch.arange(512, device=device)[:, None, None]
rows = (view.dy[:, None] + torch.arange(pictures.shape[2], device=device))[:, :, None]
across = torch.arange(pictures.shape[3], device=device)
columns = (view.dx[:, None] + torch.where(view.flip[:, None], across.flip(0), across))[:, None, :]
lean_model = copy.deepcopy(plain_model).requires_grad_(False)
wide_model = copy.deepcopy(plain_model).double()
truth = noise_gradient(products=True, whole=True, wide=True).cpu()

changes = {
    "plain": {},
    "1 products": {"products": True},
    "2 whole batch": {"whole": True},
    "3 no weights": {"lean": True},
    "4 bfloat16" if precision(device) == torch.bfloat16 else "4 half": {"low": True},
    "5 folded": {"folded": True},
    "6 kernels": {"kernels": True},
}
variants, flags = {}, {}
for name, change in changes.items():
    flags = flags | change
    variants[name] = lambda flags=flags: noise_gradient(**flags)
times = in_turns(variants, 5)

# %% tags=["hide-input"]
medians = {name: statistics.median(seconds) for name, seconds in times.items()}
print(f"{'':16s}{'ms':>8s}{'images/s':>10s}{'× before':>10s}{'× plain':>9s}   share with float64's sign")
previous, agreement = medians["plain"], {}
for name, median in medians.items():
    gradient = variants[name]().cpu()
    counted = truth != 0
    agreement[name] = (gradient.sign() == truth.sign())[counted].float().mean().item()
    print(
        f"{name:16s}{1e3 * median:8.1f}{512 / median:10,.0f}{previous / median:10.2f}{medians['plain'] / median:9.1f}"
        f"   {agreement[name]:.4f}"
    )
    previous = median
print(f"{512 / medians['6 kernels'] / bound:.0%} of what the matrix products alone would allow")
assert medians["6 kernels"] < medians["plain"] / 4
assert agreement["3 no weights"] > 0.999
assert min(agreement.values()) > 0.9

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(7.5, 3.1))
    names = list(times)[::-1]
    for place, name in enumerate(names):
        speeds = sorted(512 / second for second in times[name])
        middle = 512 / medians[name]
        spread = [[middle - speeds[0]], [speeds[-1] - middle]]
        axes.barh(place, middle, height=0.6, xerr=spread, capsize=3, color=plots.COLOURS[0])
        axes.annotate(f"{middle:,.0f}", (speeds[-1], place), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(names)), names)
    axes.set(xscale="log", xlabel="pictures a second through one noise step (whiskers: smallest and largest of five)")
    axes.margins(x=0.15)
    axes.grid(axis="y", visible=False)
    plt.close(figure)
plots.show(
    figure, "Pictures a second through a noise step, from the plain program through six changes, on a log scale."
)

# %% [markdown]
# Medians of five, taken in turns; what a change buys depends on what was changed before. Two things to take from the
# table. First, measure before you mend: the largest gain was in the loss, three lines of formula, and not in the
# network. Second, lower precision has a price that this page states: in bfloat16 some signs differ, where the gradient
# is small. Does it matter? The noise of [Building MI-UE](building_miue.ipynb) is crafted like this, and works.
#
# What did *not* help, when it was tried by hand with one thread of this processor, the small residual network and
# torch 2.14: `torch.compile` of the surrogate. A forward and backward pass on 250 pictures took 33 ms, where the
# surrogate as it is took 27 ms just before and 37 ms just after. Convolutions take the time there, and it calls the
# same ones. The library does not use it.

# %% [markdown]
# ## A loss for any batch
#
# With matrix products the loss still keeps $B \times B$ matrices: scores, masks, exponentials, and the same again for
# the gradient. At $B = 512$ that is nothing; at $B = 16{,}384$ each is a gigabyte. Why would one want such a batch?
# With 1,000 classes, 512 pictures hold half a partner each.
#
# The way out is to keep the *sums* and not what was summed. A log-sum-exp can be built up tile by tile (Milakov and
# Gimelshein 2018): keep the largest score so far, $m$, and the sum $z$ of exponentials relative to it; a tile with
# maximum $m'$ changes them to
#
# $$m^+ = \max(m, m'), \qquad z^+ = z \, e^{m - m^+} + \sum_{k \in \text{tile}} e^{s_{jk} - m^+}.$$
#
# The gradient needs the tiles a second time, and computes them a second time instead of having kept them, as
# FlashAttention does (Dao et al. 2022): with $p_{jk} = e^{s_{jk} - \operatorname{lse}_j}$ the share of $k$ in the sum
# of $j$, and $q_{jk}$ its share in the sum over $j$'s own class (0 outside it), the similarity term's
# $\partial L / \partial s_{jk}$ is $(p_{jk} - q_{jk}) / B$. Forward, in plain PyTorch:


# %%
def streamed_logsumexp(directions, tau, tile):
    """log Σ_k exp(⟨u_j, u_k⟩/τ) of every j, without more than B × tile scores at a time."""
    largest = torch.full((len(directions),), -torch.inf, device=directions.device)
    total = torch.zeros_like(largest)
    for columns in directions.split(tile):
        scores = directions @ columns.T / tau
        new = torch.maximum(largest, scores.max(1).values)
        total = total * torch.exp(largest - new) + torch.exp(scores - new[:, None]).sum(1)
        largest = new
    return largest + total.log()


u = F.normalize(torch.randn(1000, 64, generator=torch.Generator().manual_seed(seed)))
whole = (u @ u.T / 0.05).logsumexp(1)
difference = (streamed_logsumexp(u, 0.05, tile=96) - whole).abs().max().item()
print(f"largest difference between tiles of 96 and the whole matrix: {difference:.1e} of {whole.max().item():.1f}")
assert difference < 1e-5 * whole.max().item()

# %% [markdown]
# The library's `similarity_loss` does this forward and backward, on a GPU in a Triton kernel each. How do the three
# ways grow with the batch? Memory is counted in a fresh process each: the peak above what it took before, features and
# gradient included. (The first way, all pairs, has its distances as one array too.)

# %% tags=["hide-input"]
MEASURE = """
import re, sys, time
from pathlib import Path
import torch
from torch.nn import functional as F
from miue_lib.kernels import similarity

def all_pairs(g, y, tau, zeta):
    same = (y[:, None] == y[None, :]).to(g.dtype)
    s = torch.exp(F.cosine_similarity(g[:, None, :], g[None, :, :], dim=2) / tau)
    distance = (g[:, None, :] - g[None, :, :]).square().sum(2).add(1e-30).sqrt() / g.shape[1]
    return (torch.log(s.sum(1) / (s * same).sum(1)) + zeta * torch.log1p((distance * same).sum(1))).mean()

ways = {"all pairs": all_pairs, "products": similarity.reference, "tiles": similarity.unchecked}
loss, n, d = ways[sys.argv[1]], int(sys.argv[2]), 128
device = "cuda" if torch.cuda.is_available() else "cpu"

def peak():
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 1e6
    found = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 / 1e6

def once(n):
    g = torch.randn(n, d, device=device, requires_grad=True)
    y = torch.arange(n, device=device) % 100
    start = time.perf_counter()
    torch.autograd.grad(loss(g, y, 0.1, 0.1), g)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start

once(128)
before = peak()
first = once(n)
print(f"{min(first, once(n)) if first < 1 else first:.4f} {peak() - before:.1f}")
"""
sizes = {"all pairs": (256, 1024), "products": (256, 1024, 4096), "tiles": (256, 1024, 4096, 16384)}
growth = {}
if device.type == "cuda" or Path("/proc/self/status").exists():
    for way, batches in sizes.items():
        for n in batches:
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, way, str(n)], capture_output=True, text=True, check=True
            )
            growth[way, n] = tuple(map(float, done.stdout.split()))
    print(f"{'B':>6s}" + "".join(f"{way:>24s}" for way in sizes))
    for n in sizes["tiles"]:
        cells = [
            f"{growth[way, n][0]:9.3f} s {growth[way, n][1]:8.0f} MB" if (way, n) in growth else "–" for way in sizes
        ]
        print(f"{n:6d}" + "".join(f"{cell:>24s}" for cell in cells))
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
        for way, batches in sizes.items():
            left.plot(batches, [growth[way, n][0] for n in batches], "o-", markersize=4, label=way)
            right.plot(batches, [max(growth[way, n][1], 0.1) for n in batches], "o-", markersize=4, label=way)
        left.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="seconds, loss and gradient")
        right.set(xscale="log", yscale="log", xlabel="batch size B", ylabel="peak memory above before (MB)")
        left.legend()
        plt.close(figure)
    plots.show(
        figure,
        "Seconds and memory of the loss with its gradient against the batch size; only in tiles does memory stay low.",
    )
    assert growth["tiles", 16384][1] < 1000

# %% [markdown]
# One run each (the faster of two where it is short), $d = 128$, 100 classes, distance term included. The time still
# grows with $B^2$, since all pairs are compared; the memory no longer does.

# %% [markdown]
# ## How does the cost grow?
#
# Crafting costs
#
# $$\text{rounds} \times \text{pictures} \times (c_{\text{train}} + \text{steps} \times c_{\text{noise}}),$$
#
# with the costs of a picture proportional to its pixels and to the size of the network. If nothing else matters, one
# short run tells what a long one will take. Does it? One round each, with everything else fixed:

# %% tags=["hide-input"]
settings = {"surrogate": run.model, "noise_batch_size": 250, "crop": 2, "epochs": 1}
base = train.balanced(2000)


def resized(side):
    pixels = F.interpolate(base.images.float(), size=(side, side), mode="bilinear", antialias=True)
    return mi.ImageSet(pixels.round().to(torch.uint8), base.labels, base.classes, f"{side} × {side}")


mi.craft("miue", train.balanced(500), steps=1, **settings)  # compiles
tried = {
    "pictures": {n: lambda n=n: mi.craft("miue", train.balanced(n), steps=2, **settings) for n in (1000, 2000, 4000)},
    "steps": {k: lambda k=k: mi.craft("miue", base, steps=k, **settings) for k in (1, 2, 4, 8)},
    "pixels": {
        len(images.images[0].flatten()): lambda images=images: mi.craft("miue", images, steps=2, **settings)
        for images in map(resized, (14, 28, 56))
    },
}
cost = {axis: {at: min(stopwatch(work) for _ in range(2)) for at, work in row.items()} for axis, row in tried.items()}
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 3, figsize=(8.4, 2.9))
    for axes, (axis, row) in zip(panels, cost.items(), strict=True):
        at, seconds = np.array(list(row)), np.array(list(row.values()))
        axes.plot(at, seconds, "o", label="measured")
        a, b = np.polyfit(at, seconds, 1)
        axes.plot(at, a * at + b, "-", color="#777777", label=f"{b:.2f} s + {a:.2g} s each")
        axes.set(xlabel=axis, ylim=(0, None), xlim=(0, None))
        axes.legend(fontsize=8)
    panels[0].set_ylabel("seconds a round")
    plt.close(figure)
plots.show(figure, "Seconds of one round against pictures, steps and pixels, with straight lines through the points.")
for axis, row in cost.items():
    print(f"{axis:9s}" + ", ".join(f"{at:,}: {seconds:.2f} s" for at, seconds in row.items()))

# %% [markdown]
# The faster of two runs each. Pictures cost in proportion. Steps add to a fixed part, the training pass; so do pixels,
# less evenly. So time one round, at a size near your own, and multiply.

# %% [markdown]
# ## What if it is stopped?
#
# A long run meets a closed laptop, a full queue, a Colab session that ends. It should go on as if nothing had happened,
# and "as if" should be testable: **the same noise, bit for bit** (on a CPU; a GPU may sum in another order). That takes
# more than saving the noise now and then. The surrogate, its momentum and its learning-rate schedule belong to the
# state; so does everything that was drawn at random and is still to be used: the order of the pictures in the epoch at
# hand, the crops of the batch.
#
# Saving the state of a random generator is one answer. Here is a simpler one: **nothing is ever drawn from a stream**.
# The crops of a batch come from a generator that is seeded with a digest of (seed, purpose, number of the batch), and
# so does the order of an epoch. Then the only random state is the *number of the batch*, and a run can stop after any
# batch. The next cell presses "stop" itself, after the second round; the library's tests stop, and kill, in between as
# well.

# %%
few = train.balanced(1000)
settings = dict(run.noise["miue"]) | {"epochs": 4}
folder = Path(tempfile.mkdtemp())


def press_stop(line):
    print(line)
    if " round 2/" in line:
        signal.raise_signal(signal.SIGINT)  # what Ctrl-C and the stop button do


keep = {"checkpoint": folder / "run.checkpoint", "checkpoint_minutes": 10}
try:
    mi.craft("miue", few, **settings, **keep, progress=press_stop, seed=seed)
except KeyboardInterrupt:
    print(f"stopped; {keep['checkpoint'].stat().st_size / 1e6:.1f} MB kept")
resumed = mi.craft("miue", few, **settings, **keep, resume=True, progress=print, seed=seed)

# %%
never_stopped = mi.craft("miue", few, **settings, seed=seed)
same = torch.equal(resumed.levels, never_stopped.levels)
print(f"the same noise as of a run that was never stopped: {same}")
assert same or device.type == "cuda"

# %% [markdown]
# (The surrogate's accuracy falls in round 4 because a fresh one begins there: `fresh_every` is 3.)
#
# A checkpoint is written beside the old one and then takes its name, so that at every moment a whole one is there, also
# if the power fails while it is written. It carries a checksum, and what it was written for: going on with other
# pictures or settings is refused.

# %%
try:
    mi.craft("miue", few, **settings | {"temperature": 0.1}, **keep, resume=True, seed=seed)
except ValueError as error:
    print(str(error).replace(str(folder), "…"))

# %% [markdown]
# ## What if the noise is larger than memory?
#
# A hundred classes of ImageNet at $224 \times 224$ are 130,000 pictures: 20 GB in 8 bits, and their noise 78 GB in
# float32. With `delta_file` the noise lies in a memory-mapped file, and only one batch of it in memory. (The pictures
# may be memory-mapped as well, if you make the `ImageSet` from such an array.) It is kept in 8 bits a pixel, but not in
# *levels*: what a batch gains in a round, if it is less than half a level, would be lost each time and never add up.
# Its unit is $\varepsilon/127$, about $0.06/255$. What does the rounding change? Compare it with what another seed
# changes.

# %%
in_file = mi.craft("miue", few, **settings, delta_file=folder / "delta", seed=seed)
other_seed = mi.craft("miue", few, **settings, seed=seed + 1)
print(f"{(folder / 'delta').stat().st_size:,} bytes for {few.images.numel():,} pixels")
shares = []
for name, noise in {"in a file": in_file, "another seed": other_seed}.items():
    apart = (noise.levels.int() - never_stopped.levels.int()).abs().float()
    shares.append((apart > 0).float().mean().item())
    size = apart.mean().item()
    print(f"{name:13s}{shares[-1]:.1%} of levels differ from those in memory, by {size:.2f} on average of all")
assert shares[0] < shares[1]
assert in_file.linf <= epsilon

# %% [markdown]
# Levels differ, since what one round rounds the next round's surrogate sees: less than another seed would change.

# %% [markdown]
# ## What if one device is not enough?
#
# Start the program several times, with torchrun, PyTorch's launcher, and each process does a share: `craft` sees that
# `torch.distributed` is initialised and divides the pictures. While crafting, each process holds the noise of its share
# only. In the model phase each takes its share of the batch, and gradients of the weights are averaged at every step,
# so that all hold the same network. (Batch normalisation normalises each share by itself, and its running statistics
# are averaged once a round: in this the processes differ from one.)
#
# The loss needs more thought, since it compares pictures. With half of them in each process, half of the pairs would be
# missing. So the processes exchange their *features*, a few numbers a picture, and each computes the loss of the whole
# batch. It then differentiates only in its own features: that is exactly its part of the whole gradient, and no
# gradient has to travel. This is the whole program; at the end the noise of all pictures is put together:

# %%
# Few pictures and rounds: several noises are crafted here, both ways.
shared, rounds = (train.balanced(10_000), 20) if profile == "gpu" else (train.balanced(2000), 12)
PROGRAM = f"""
import torch
from torch import distributed
import miue_lib as mi

distributed.init_process_group()
rank = distributed.get_rank()
on = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
train, _ = mi.load({run.data!r}, device=on)
for seed in range({run.seeds}):
    settings = dict(mi.profile({profile!r}).noise["miue"], epochs={rounds}, seed=seed)
    noise = mi.craft("miue", train.balanced({len(shared)}), **settings, progress=print)
    if rank == 0:
        noise.save(f"together{{seed}}")
distributed.destroy_process_group()
"""
(folder / "craft_together.py").write_text(PROGRAM)
processes = max(1, torch.cuda.device_count()) if device.type == "cuda" else 2
torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
start = time.perf_counter()
done = subprocess.run([*torchrun, "craft_together.py"], cwd=folder, capture_output=True, text=True, check=False)
assert done.returncode == 0, done.stderr[-3000:]
print(done.stdout.splitlines()[-1])
print(f"{run.seeds} noises by {processes} processes in {time.perf_counter() - start:.0f} s, from start to end")

# %% [markdown]
# Two processes share the same two cores here: this shows that it works, not that it is faster. Is their noise as good
# as one process's? The same seed does not give the same noise, since each process draws its own random numbers; and how
# well noise works differs from one crafting seed to the next. So craft with several seeds both ways, and train a victim
# on each.

# %%
results = {"one process": [], f"{processes} together": []}
for seed_of_noise in range(run.seeds):
    alone = mi.craft("miue", shared, **dict(run.noise["miue"], epochs=rounds, seed=seed_of_noise))
    together = mi.Perturbation.load(folder / f"together{seed_of_noise}")
    for row, noise in zip(results.values(), (alone, together), strict=True):
        victim = mi.build(run.model, shared, seed=1 + seed_of_noise)
        mi.fit(victim, shared.with_(noise), seed=1 + seed_of_noise, **run.victim)
        row.append(mi.accuracy(victim, test))
for name, row in results.items():
    each = " ".join(f"{value:.3f}" for value in row)
    print(f"{name:14s}{each}   mean {np.mean(row):.3f}, standard deviation {np.std(row, ddof=1):.3f}")
one, several = results.values()
deviation = np.sqrt((np.var(one, ddof=1) + np.var(several, ddof=1)) / 2)
print(f"the means differ by {abs(np.mean(one) - np.mean(several)) / deviation:.1f} pooled standard deviations")
assert abs(np.mean(one) - np.mean(several)) < 0.1  # no more than crafting seeds differ among each other

# %% [markdown]
# Accuracy on all clean test pictures, where guessing gets 0.1; one victim for each of the noises. (The pooled standard
# deviation is the root of the mean of the two variances.) The noise works less well than elsewhere in this book: it was
# crafted in fewer rounds, for fewer pictures, so that this page is made in minutes.

# %% [markdown]
# ## And on a GPU?
#
# The same program runs there; the kernels are then Triton's, weights are updated by one fused kernel, and nothing waits
# for the GPU within a round. A T4 computes in float16, where small gradients vanish: the loss is scaled before its
# gradient is taken, which changes no sign. The arithmetic above gives the bound, `benchmarks/craft.py` measures how
# near it one comes, beside a plain re-statement of the released algorithm, and `benchmarks/kernels.py` each kernel
# beside PyTorch's own. **No GPU result recorded yet.**

# %% [markdown]
# ## What to remember
#
# - Count first. Rounds × pictures × (training step + steps × noise step) is the cost; everything else is overhead, and
#   overhead can be removed.
# - Measure, change one thing, measure again, and check each time that the answer is the same.
# - Most of a plain program's time goes into what a formula hides: arrays of all pairs, loops over samples, gradients
#   nobody uses.
# - Keep sums, not what was summed; compute twice rather than store.
# - If randomness is a function of the batch's number, stopping and going on is exact, and so is a test of it.
#
# ## Exercises
#
# 1. How long would MI-UE take for ImageNet-100, 130,000 pictures at $224 \times 224$, with ResNet-18 and the paper's
#    100 × 10 steps, at $400 \cdot 10^{12}$ operations a second? (ResNet-18 on $224 \times 224$ needs about 3.6 GFLOP
#    forward.)
#
# <details><summary>Solution</summary>
#
# A training step is about three times the forward pass, a noise step twice: $3.6 \cdot (3 + 10 \cdot 2) = 83$ GFLOP for
# a picture and round. Times 130,000 pictures and 100 rounds that is $1.08 \cdot 10^{18}$ operations, 45 minutes at that
# rate.
#
# </details>
#
# 2. Why may each process keep its gradient to itself in the noise phase, while in the model phase gradients are
#    averaged?
#
# <details><summary>Solution</summary>
#
# Every picture's noise belongs to one process, and the loss of the whole batch, which each process computes from all
# features, has been differentiated in that process's own features: nothing is missing. The weights belong to all
# processes; each has seen only its own pictures, so the gradient of the whole batch is the mean of theirs (up to batch
# normalisation, which sees each share by itself).
#
# </details>
#
# 3. Leave the maximum out of `streamed_logsumexp`: replace the line of `new` by `new = torch.zeros_like(largest)`. From
#    which temperature on does float32 overflow? And float16?
#
# <details><summary>Solution</summary>
#
# Scores go up to $1/\tau$ (each picture with itself), and float32 ends at $e^{88.7}$: from $\tau < 0.0113$ on a single
# term overflows; with 1,000 equal terms, $e^{88.7 - 6.9}$, from $\tau < 0.0122$. In float16, which ends at 65,504, a
# single term overflows from $\tau < 0.0902$ on, so at the paper's $\tau = 0.1$ three of them do.
#
# </details>
