# %% [markdown]
# # Measuring it
#
# The last chapter warned: every finite number for the mutual information of continuous variables has a
# resolution built in. This chapter builds the instruments. Given $n$ pairs $(x_i, y_i)$ and nothing else, how large is
# $I(X; Y)$? Four estimators answer: counting in boxes, smoothing with kernels, asking for nearest neighbours, and
# training a network. Afterwards you can
#
# - write each of the four in a few lines, and know what the library's fast versions add;
# - say how each is wrong (its bias), how much it jumps from sample to sample (its variance), and when to trust it;
# - measure features with hundreds of dimensions through random slices, with the shuffled baseline that such numbers
#   need.
#
# You need the [last chapter](what_is_mi.ipynb), for what mutual information is, and PyTorch.

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/measuring_mi.ipynb)

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
profile = "cpu"  # this chapter is the same in both profiles; a GPU makes it faster
seed = 0

# %% [markdown]
# ## Who referees?
#
# An estimate of an unknown quantity can't be checked. So take pairs whose mutual information is known in closed form,
# estimate it from samples, and compare. Two such referees, the first derived in the last chapter:
#
# - *a Gaussian pair* of correlation $\rho$: $I = -\frac12 \log(1 - \rho^2)$;
# - *a uniform channel*, $X \sim U(0, 1)$ seen through $Y = X + U(-\varepsilon, \varepsilon)$: $I = \varepsilon - \log
#   2\varepsilon$ for $\varepsilon \le \frac12$. ($Y$ has a trapezoid for a density, with $h(Y) = \varepsilon$, and $h(Y
#   \mid X) = \log 2\varepsilon$.) Its edges are sharp.
#
# One sample says little about an estimator, since its error has two parts:
#
# $$\hat I - I = \underbrace{\mathbb{E}\hat I - I}_{\text{bias}} +
# \underbrace{\hat I - \mathbb{E}\hat I}_{\text{noise, of variance } \operatorname{Var} \hat I}.$$
#
# Noise shrinks if you average over samples; bias stays. So the error plots below take several independent samples each:
# the mean error shows the bias, the standard deviation the noise.

# %%
import math
import time
import warnings

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch import nn

import miue_lib as mi
from miue_lib import plots, theory

torch.manual_seed(seed)
device = "cuda" if torch.cuda.is_available() else "cpu"


def gaussian_pairs(rho, n, repeats):
    """x and y `(n, repeats)`: in each column an independent sample of n pairs of correlation ρ."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, repeats, generator=generator, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def repeated(estimator, x, y, **settings):
    """One estimate for each column: each column is treated as its own pair, all in one batch."""
    axes = torch.eye(x.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*can't read more than")  # the figures show where that is
        return mi.mutual_information(
            x, y, estimator=estimator, slices=(axes, axes), baseline=False, seed=seed, device=device, **settings
        ).per_slice


for rho in (0.0, 0.3, 0.6, 0.9, 0.99):
    print(f"ρ = {rho:4.2f}: I = {theory.gaussian_mi(rho):.4f} nats")
print(f"uniform channel, ε = 0.1: I = {theory.uniform_channel_mi(0.1):.4f} nats")

# %% [markdown]
# ## Can we just count?
#
# Cut each side into $B$ bins, count pairs in the $B \times B$ boxes, and take the mutual information of the table, as
# if the frequencies were probabilities (the *plug-in* estimate). Where to cut? Cutting by *rank*, so that each bin
# holds equally many values, has an advantage that equal widths lack: a monotone change of units moves no value into
# another bin. Mutual information doesn't feel such a change, so neither should its estimate.


# %%
def histogram_by_hand(x, y, bins):
    n = len(x)

    def bin_of(values):
        return values.argsort().argsort() * bins // n

    table = torch.zeros(bins, bins, dtype=torch.float64)
    table.index_put_((bin_of(x), bin_of(y)), torch.tensor(1 / n, dtype=torch.float64), accumulate=True)
    product = table.sum(1, keepdim=True) * table.sum(0, keepdim=True)
    return torch.xlogy(table, table / product).nansum().item()


x, y = gaussian_pairs(0.6, 5000, 1)
by_hand = histogram_by_hand(x[:, 0], y[:, 0], bins=32)
library = mi.mi.histogram(x, y, bins=32, correct=False, baseline=False)
print(f"by hand {by_hand:.6f}, library {library.value:.6f}, truth {theory.gaussian_mi(0.6):.6f} nats")
assert abs(by_hand - library.value) < 1e-12

# %% [markdown]
# (`mi` is the library, `mi.mi` its part for mutual information; each estimator is a function there.) It agrees, and it
# is far too large. Why? Even where $X$ and $Y$ are independent the boxes are not filled evenly, and the table takes
# every accident for dependence. If $K$ cells of a table have a probability above zero, its entropy is read too small by
# about $(K - 1)/2n$ (Miller 1955), so the plug-in estimate of independent variables is too large by
#
# $$\frac{(B^2 - 1) - 2(B - 1)}{2n} = \frac{(B - 1)^2}{2n}.$$
#
# Adding the missing $(K - 1)/2n$ to each entropy is the *Miller–Madow correction*; a sample doesn't tell $K$, so it
# takes the number of occupied cells. Too few bins have the opposite fault: what happens inside a box is lost, and no
# table of $B$ bins a side holds more than $\log B$ nats. Move the slider through the sample sizes.

# %% tags=["hide-input"]
all_bins, rhos, repeats = (4, 8, 16, 32, 64, 128), (0.0, 0.6, 0.9, 0.99), 10
frames, at_zero = {}, {}
for n in (500, 2000, 10_000, 50_000):
    with plt.rc_context(plots.STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.5), sharey=True)
        for axes, correct in zip(panels, (False, True), strict=True):
            for rho, colour in zip(rhos, plots.COLOURS, strict=False):
                x, y = gaussian_pairs(rho, n, repeats)
                errors = torch.stack(
                    [repeated("histogram", x, y, bins=b, correct=correct) - theory.gaussian_mi(rho) for b in all_bins]
                )
                if rho == 0:
                    at_zero[n, correct] = errors
                mean, deviation = errors.mean(1), errors.std(1)
                axes.plot(all_bins, mean, "o-", markersize=4, color=colour, label=f"ρ = {rho:g}")
                axes.fill_between(all_bins, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
            axes.axhline(0, color="black", linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(all_bins, all_bins)
            axes.set(xlabel="bins a side", ylim=(-1.05, 0.75))
            axes.set_title("corrected" if correct else "plug-in", fontsize=10)
        panels[0].set_ylabel("error (nats)")
        panels[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
        figure.suptitle(f"n = {n:,}, {repeats} samples each: mean and standard deviation", fontsize=10)
        plt.close(figure)
    frames[f"Error of the histogram against the number of bins at n = {n}, plain and corrected"] = figure
expected = [(b - 1) ** 2 / (2 * 50_000) for b in all_bins]
for b, plain, corrected, e in zip(all_bins, at_zero[50_000, False], at_zero[50_000, True], expected, strict=True):
    print(
        f"n = 50,000, ρ = 0, {b:3d} bins: plug-in {plain.mean():+.5f} (expected {e:+.5f}), corrected "
        f"{corrected.mean():+.5f} ± {corrected.std():.5f}"
    )
plain, corrected = at_zero[50_000, False][3], at_zero[50_000, True][3]
standard_error = corrected.std() / math.sqrt(repeats)
assert abs(plain.mean() - 31**2 / 100_000) < 5 * standard_error + 2e-4, "the bias of a table of 32 × 32"
assert abs(corrected.mean()) < 5 * standard_error + 2e-4, "is removed"
plots.slider(frames, label="sample size")

# %% [markdown]
# On the right of each panel the boxes are too many for the sample. There the correction helps, and where hardly any
# box holds two pairs it is overwhelmed as well. (At $n = 500$ most points of 64 and 128 bins lie above the frame, and
# at $n = 2{,}000$ most of those of 128 bins: errors of up to 3.5 nats.) On the left they are too coarse for strong
# dependence: at $\rho = 0.99$ four bins read almost a nat too little, and no sample size mends that. 32 bins are a
# compromise for tens of thousands of pairs and weak or moderate dependence.
#
# **Remember:** a histogram has a bias upwards, which can be removed unless the table is sparse, and one from its
# resolution downwards, which can't. Near independence the first is about $(B-1)^2/2n$.

# %% [markdown]
# ## Can we do without boxes?
#
# Mutual information is the mean of $\log \frac{p(x, y)}{p(x)\,p(y)}$ over the pairs. Estimate the three densities, and
# take that mean. A *kernel density estimate* at a point adds up little Gaussians around all points of the sample. Four
# decisions hide in that sentence, and each can spoil the result:
#
# 1. *Leave one out.* A point's own Gaussian must not count at that point; it says nothing about how dense the others
#    are there.
# 2. *Which shape?* Kernels for the pair should be as elongated as the data. A round kernel is wider than a
#    thin cloud and blurs it. The library uses the data's own covariance times $h^2$, and the same $h$ for the
#    marginals. For Gaussian data all three densities are then widened alike, and their mutual information stays.
# 3. *The logarithm of a noisy sum* is too small on average, by half the sum's relative variance. The variance of a sum
#    $S$ of kernel values is about the sum $Q$ of their squares; so add $Q / 2S^2$.
# 4. *Lonely points.* Where nobody is near, $\log S$ tells how fast a Gaussian falls off, nothing about the data. No sum
#    counts as less than a tenth of a neighbour.


# %%
def kde_by_hand(x, y, leave_out=True, shaped=True, careful=True):
    n = len(x)
    h = n ** (-1 / 6)  # the rule of Silverman (1986) for two dimensions, in standard deviations
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    r = (x * y).sum() / (n - 1) if shaped else torch.tensor(0.0)
    u, v = (x + y) / torch.sqrt(2 + 2 * r), (x - y) / torch.sqrt(2 - 2 * r)  # principal axes, unit variance

    def log_sum(*coordinates):
        kernel = torch.exp(-sum((c[:, None] - c[None, :]) ** 2 for c in coordinates) / (2 * h**2))
        if leave_out:
            kernel.fill_diagonal_(0)
        S, Q = kernel.sum(1), (kernel**2).sum(1)
        S = S.clamp_min(0.1 if careful else 1e-300)
        return S.log() + (Q / (2 * S**2) if careful else 0)

    terms = log_sum(u, v) - log_sum(x) - log_sum(y)
    return (terms.mean() + math.log(n - 1 if leave_out else n) - 0.5 * torch.log1p(-r * r)).item()


x, y = gaussian_pairs(0.6, 2000, 1)
by_hand = kde_by_hand(x[:, 0], y[:, 0])
library = mi.mi.kde(x, y, baseline=False)
print(f"by hand {by_hand:.6f}, library {library.value:.6f}, truth {theory.gaussian_mi(0.6):.6f} nats")
assert abs(by_hand - library.value) < 5e-4

variants = {
    "as above": {},
    "1 a point counts itself": {"leave_out": False},
    "2 round kernels": {"shaped": False},
    "3, 4 plain logarithms": {"careful": False},
}
table = {}
lines = ["", "mean error ± standard deviation, nats, 10 samples of n = 1000"]
lines.append(" " * 24 + "".join(f"{f'ρ = {rho:g}':>18s}" for rho in (0.0, 0.6, 0.99)))
for name, settings in variants.items():
    for rho in (0.0, 0.6, 0.99):
        x, y = gaussian_pairs(rho, 1000, 10)
        values = torch.tensor([kde_by_hand(x[:, i], y[:, i], **settings) for i in range(10)])
        table[name, rho] = values - theory.gaussian_mi(rho)
    cells = (f"    {table[name, rho].mean():+.3f} ± {table[name, rho].std():.3f}" for rho in (0.0, 0.6, 0.99))
    lines.append(f"{name:24s}" + "".join(cells))
print("\n".join(lines))
assert table["2 round kernels", 0.99].mean() < -0.4
assert table["1 a point counts itself", 0.0].mean() > 0.03
assert abs(table["as above", 0.0].mean()) < abs(table["3, 4 plain logarithms", 0.0].mean())

# %% [markdown]
# The library's value differs in the fourth digit at most, although it adds up nothing like $n^2$ terms. It spreads the
# points over a grid, smooths the grid with two matrix products, and reads it at the points. (How a grid can be that
# exact is told at the top of `miue_lib/kernels/kde.py`.)
#
# What the kernel can't see is a feature finer than $h$. Gaussian data have none. The uniform channel has: its edges.


# %% tags=["hide-input"]
def uniform_pairs(epsilon, n, repeats):
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.rand(2, n, repeats, generator=generator, dtype=torch.float64)
    return x, x + epsilon * (2 * noise - 1)


factors = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
tests = {
    "Gaussian, ρ = 0.6": (gaussian_pairs(0.6, 5000, 10), theory.gaussian_mi(0.6)),
    "Gaussian, ρ = 0.99": (gaussian_pairs(0.99, 5000, 10), theory.gaussian_mi(0.99)),
    "uniform channel, ε = 0.1": (uniform_pairs(0.1, 5000, 10), theory.uniform_channel_mi(0.1)),
}
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(6.6, 3.4))
    for name, ((x, y), truth) in tests.items():
        errors = torch.stack([repeated("kde", x, y, bandwidth=f) - truth for f in factors])
        (line,) = axes.plot(factors, errors.mean(1), "o-", markersize=4, label=name)
        axes.fill_between(
            factors,
            errors.mean(1) - errors.std(1),
            errors.mean(1) + errors.std(1),
            color=line.get_color(),
            alpha=0.2,
            linewidth=0,
        )
    axes.axhline(0, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(factors, factors)
    axes.set(xlabel="bandwidth, as a multiple of Silverman's", ylabel="error (nats)")
    axes.legend(loc="lower left")
    axes.set_title("n = 5,000, 10 samples each: mean and standard deviation", fontsize=10)
    plt.close(figure)
assert errors[-1].mean() < errors[0].mean() - 0.03, "wide kernels miss edges"
plots.show(
    figure,
    "Error of the kernel estimate against its bandwidth: flat around zero for Gaussian pairs, ever more negative for "
    "the uniform channel as the kernel becomes wider than its edges.",
)

# %% [markdown]
# **Remember:** kernels are nearly exact where densities are smooth on the scale of $h$, and can be far off, either way,
# where they are not.

# %% [markdown]
# ## Must the resolution be the same everywhere?
#
# Boxes and kernels have one size. The estimator of Kraskov, Stögbauer and Grassberger
# ([2004](https://arxiv.org/abs/cond-mat/0305641)), *KSG*, lets each point choose. Take the larger of $|\Delta x|$ and
# $|\Delta y|$ as the distance of two points, and draw a square around each point that just reaches its $k$-th nearest
# neighbour, of half-width $\varepsilon_i$. Where the data are dense it is small. Then count the points strictly inside
# the square's shadow on each axis, $n_{x,i}$ and $n_{y,i}$. If $X$ and $Y$ are independent the shadows hold many points
# besides the $k$ in the square; if one settles the other, hardly any more. With the digamma function $\psi$, which is
# about the logarithm,
#
# $$\hat I = \psi(k) + \psi(n) - \frac1n \sum_i \bigl[\psi(n_{x,i} + 1) + \psi(n_{y,i} + 1)\bigr].$$
#
# Since one $\varepsilon_i$ serves for all three densities, most of the error of each cancels. Move the slider through
# $k$ and watch the square of one point, the star, and its shadows. Points in the vertical shadow make $n_x$, those in
# the horizontal one $n_y$; points in both are inside the square, and are counted in each. The $k$-th neighbour itself
# lies on the square's edge, and so in one shadow only.

# %% tags=["hide-input"]
x, y = (side[:, 0] for side in gaussian_pairs(0.8, 250, 1))
centre = int(((x - 0.4).square() + (y - 0.6).square()).argmin())
apart_x, apart_y = (x - x[centre]).abs(), (y - y[centre]).abs()
others = torch.arange(len(x)) != centre
frames = {}
for k in (1, 3, 5, 10, 20, 40):
    eps = torch.maximum(apart_x, apart_y).kthvalue(k + 1).values.item()  # the nearest is the point itself
    in_x, in_y = (apart_x < eps) & others, (apart_y < eps) & others
    counts = int(in_x.sum()), int(in_y.sum())
    groups = {
        "in neither shadow": (others & ~in_x & ~in_y, "#999999"),
        "in the vertical one": (in_x & ~in_y, plots.COLOURS[0]),
        "in the horizontal one": (in_y & ~in_x, plots.COLOURS[1]),
        "in both": (in_x & in_y, plots.COLOURS[2]),
    }
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(6.8, 4.6))
        at_x, at_y = x[centre].item(), y[centre].item()
        axes.axvspan(at_x - eps, at_x + eps, color=plots.COLOURS[0], alpha=0.15, linewidth=0)
        axes.axhspan(at_y - eps, at_y + eps, color=plots.COLOURS[1], alpha=0.15, linewidth=0)
        for name, (group, colour) in groups.items():
            number = str(int(group.sum())).rjust(3, "\u2007")  # a space as wide as a digit
            axes.plot(x[group], y[group], "o", markersize=3, color=colour, label=f"{number} {name}")
        axes.add_patch(plt.Rectangle((at_x - eps, at_y - eps), 2 * eps, 2 * eps, fill=False, linewidth=1))
        axes.plot(at_x, at_y, "k*", markersize=4)
        axes.set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3), aspect="equal", xlabel="x", ylabel="y")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
        axes.set_title(f"k = {k}: ε = {eps:.2f}, $n_x$ = {counts[0]}, $n_y$ = {counts[1]}", fontsize=10)
        plt.close(figure)
    frames[
        f"A square around one point that reaches its neighbour number {k}; {counts[0]} other points in its vertical "
        f"shadow and {counts[1]} in its horizontal one, of which {int((in_x & in_y).sum())} in both"
    ] = figure
plots.slider(frames, label="k")

# %% [markdown]
# In code it is shorter than in words. (`fill_diagonal_` keeps a point from being its own neighbour; the strict
# comparison counts the point itself, which is the $+1$ of the formula.)


# %%
def ksg_by_hand(x, y, k):
    n = len(x)
    apart_x, apart_y = (x[:, None] - x[None, :]).abs(), (y[:, None] - y[None, :]).abs()
    eps = torch.maximum(apart_x, apart_y).fill_diagonal_(torch.inf).kthvalue(k, dim=1, keepdim=True).values

    def psi(count):
        return torch.digamma(torch.as_tensor(count, dtype=torch.float64))

    return (psi(k) + psi(n) - (psi((apart_x < eps).sum(1)) + psi((apart_y < eps).sum(1))).mean()).item()


x, y = gaussian_pairs(0.6, 2000, 1)
by_hand = ksg_by_hand(*((side[:, 0] - side.mean()) / side.std() for side in (x, y)), k=3)
library = mi.mi.ksg(x, y, k=3, baseline=False)
print(f"by hand {by_hand:.10f}, library {library.value:.10f}, truth {theory.gaussian_mi(0.6):.6f} nats")
assert abs(by_hand - library.value) < 1e-12

# %% [markdown]
# These are equal, digit by digit, and this is what the library promises: its search visits few candidates a point
# instead of all $n$, and finds the same neighbours as brute force, ties included. (Before comparing we standardised by
# hand what the library standardises by itself. KSG needs that: its squares are as wide as they are high.)
#
# What does $k$ do? A larger square averages over more neighbours, so the estimate jumps less; but it is coarser.

# %% tags=["hide-input"]
ks = (1, 2, 3, 5, 10, 20, 50)
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.3))
    for rho, colour in zip((0.0, 0.6, 0.9, 0.99), plots.COLOURS, strict=False):
        x, y = gaussian_pairs(rho, 1000, 30)
        errors = torch.stack([repeated("ksg", x, y, k=k) - theory.gaussian_mi(rho) for k in ks])
        panels[0].plot(ks, errors.mean(1), "o-", markersize=4, color=colour, label=f"ρ = {rho:g}")
        panels[1].plot(ks, errors.std(1), "o-", markersize=4, color=colour)
        if rho == 0:
            assert abs(errors[2].mean()) < 4 * errors[2].std() / math.sqrt(30), "no bias where nothing depends"
        if rho == 0.6:
            assert errors[5].std() < errors[0].std(), "a larger k jumps less"
    panels[0].axhline(0, color="black", linewidth=1)
    for axes, title in zip(panels, ("mean error (nats)", "standard deviation (nats)"), strict=True):
        axes.set_xscale("log")
        axes.set_xticks(ks, ks)
        axes.minorticks_off()
        axes.set(xlabel="k", ylabel=title)
    panels[0].legend(loc="lower left")
    figure.suptitle("KSG, n = 1,000, 30 samples each", fontsize=10)
    plt.close(figure)
plots.show(
    figure,
    "Bias and standard deviation of KSG against k at n = 1000: at strong dependence the bias becomes negative as k "
    "grows, and the standard deviation falls with k.",
)

# %% [markdown]
# For $k$ from 3 to 5 the bias is smaller than the noise of a single sample. The library's default is 3, its authors'
# choice for pairs of scalars.
#
# **Remember:** for pairs of numbers with a joint density, sharp edges or not, KSG is almost unbiased if $k$ is small
# and $n$ large, and pays for it in noise.

# %% [markdown]
# ## Can a network do it?
#
# Yes, as Belghazi et al. ([2018](https://arxiv.org/abs/1801.04062)) showed with *MINE*. Donsker and Varadhan had proved
# that for *every* function $T$,
#
# $$I(X; Y) \ge \mathbb{E}\, T(x, y) - \log \mathbb{E}\, e^{T(x, y')},$$
#
# where $(x, y)$ is a pair and $y'$ belongs to another pair. The best $T$ is $\log \frac{p(x, y)}{p(x) p(y)}$ up to a
# constant, and there the two sides are equal. So take a small network for $T$ and train it to raise the right side. It
# is a classifier in disguise, of true pairs against shuffled ones.


# %%
def mine_by_hand(x, y, steps=400):
    torch.manual_seed(seed)
    pairs = torch.cat((x, y), 1).float()
    train, held_out = pairs[len(pairs) // 3 :], pairs[: len(pairs) // 3]
    T = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(T.parameters(), lr=3e-3)

    def bound(pairs):
        shuffled = torch.stack((pairs[:, 0], pairs[torch.randperm(len(pairs)), 1]), 1)
        return T(pairs).mean() - (T(shuffled).logsumexp(0) - math.log(len(pairs))).squeeze()

    curves = {"the mini-batch it is trained on": [], "pairs that were held out": []}
    for _ in range(steps):
        value = bound(train[torch.randint(len(train), (512,))])
        optimizer.zero_grad()
        (-value).backward()
        optimizer.step()
        with torch.no_grad():
            curves["the mini-batch it is trained on"].append(value.item())
            curves["pairs that were held out"].append(bound(held_out).item())
    return curves


x, y = gaussian_pairs(0.9, 6000, 1)
curves = mine_by_hand(x, y)
library = mi.mi.mine(x, y, baseline=False, seed=seed)
truth = theory.gaussian_mi(0.9).item()
for name, values in curves.items():
    print(f"{name}: last 100 steps {np.mean(values[-100:]):.4f} ± {np.std(values[-100:]):.4f} nats")
print(f"library {library.value:.4f} ± {library.stderr:.4f}, truth {truth:.4f} nats")
assert abs(library.value - truth) < 4 * library.stderr
assert np.std(curves["the mini-batch it is trained on"][-100:]) > 2 * np.std(curves["pairs that were held out"][-100:])

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(7.2, 3.3))
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, linewidth=1.2, label=name)
    axes.axhline(truth, color="black", linestyle="--", linewidth=1, label="truth")
    axes.set(xlabel="training step", ylabel="bound (nats)", ylim=(0, 1.2))
    axes.legend(loc="lower right")
    plt.close(figure)
plots.show(
    figure,
    "The bound along the training, on the mini-batch trained on and on pairs held out: both climb towards the truth, "
    "and the first jumps a lot.",
)

# %% [markdown]
# Read the value off the held-out pairs. The mini-batch's jumps, and on a set that the network has
# seen often it rewards memorising. The library also averages the weights over the last steps, keeps the held-out
# curve (`details["curve"]`), and trains the networks of all slices at once.
#
# A bound from $n'$ held-out pairs can't certify more than about $\log n'$ nats (McAllester and Stratos
# [2020](https://arxiv.org/abs/1811.04251)), and a network that has not finished learning reads too little. So look at
# the curve: has it stopped climbing? Even then the value is only as good as the held-out pairs: two
# thousand of them leave about ±0.02 nats here, which is the standard error that the library prints. What lies below the
# truth is the bound, not its reading: that has this noise, and the logarithm of a sample mean is a little too small on
# average, which makes the reading a little too large.
#
# **Remember:** MINE estimates a lower bound, at the price of a training, and sampling noise can lift its reading above
# the truth. Believe it when its held-out curve is flat.

# %% [markdown]
# ## Which one should I trust?
#
# Let all four run against the Gaussian referee. The slider goes through the sample sizes.

# %% tags=["hide-input"]
settings = {
    "KSG, k = 3": ("ksg", {}),
    "kernels": ("kde", {}),
    "histogram, 32 bins": ("histogram", {}),
    "MINE": ("mine", {"steps": 300, "hidden": 32, "batch_size": 256}),
}
rhos, repeats = (0.0, 0.3, 0.6, 0.9, 0.99), 8
frames, race = {}, {}
for n in (500, 2000, 10_000):
    with plt.rc_context(plots.STYLE):
        figure, axes = plt.subplots(figsize=(8.4, 3.6))
        for place, (name, (estimator, options)) in enumerate(settings.items()):
            for rho in rhos:
                x, y = gaussian_pairs(rho, n, repeats)
                race[name, n, rho] = repeated(estimator, x, y, **options) - theory.gaussian_mi(rho)
            errors = torch.stack([race[name, n, rho] for rho in rhos])
            axes.errorbar(
                np.arange(len(rhos)) + 0.12 * (place - 1.5),
                errors.mean(1),
                yerr=errors.std(1),
                fmt="o",
                markersize=5,
                capsize=3,
                label=name,
            )
        axes.axhline(0, color="black", linewidth=1)
        axes.set_xticks(range(len(rhos)), [f"{rho:g}\n{theory.gaussian_mi(rho):.2f} nats" for rho in rhos])
        axes.set(xlabel="correlation ρ and true mutual information", ylabel="error (nats)", ylim=(-0.5, 0.75))
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
        axes.set_title(f"n = {n:,}, {repeats} samples each: mean and standard deviation", fontsize=10)
        plt.close(figure)
    frames[f"Errors of the four estimators at n = {n}, for five correlations"] = figure
for name in settings:
    error = race[name, 10_000, 0.6]
    print(f"{name:20s} n = 10,000, ρ = 0.6: {error.mean():+.4f} ± {error.std():.4f} nats")
assert all(abs(race[name, 10_000, 0.6].mean()) < 0.03 for name in settings)
assert race["histogram, 32 bins", 10_000, 0.99].mean() < -0.05 < race["KSG, k = 3", 10_000, 0.99].mean()
plots.slider(frames, label="sample size")

# %% [markdown]
# Gaussian pairs are the easy case, and kernels were made for them. Here are three harder ones, all with a known truth:
# the uniform channel; a Gaussian pair whose sides were cubed, which changes no mutual information but makes tails
# heavy; and *clusters*, ten tight ones that both sides agree about, which is what features of ten classes look like,
# and where $I = \log 10$. The last rows first replace each value by the Gaussian quantile of its rank, its
# *normal score* (`scale="rank"`).


# %% tags=["hide-input"]
def clusters(n, repeats):
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(0, 10, (n, repeats), generator=generator).double()
    x, y = centre + 0.05 * torch.randn(2, n, repeats, generator=generator, dtype=torch.float64)
    return x, y


n = 10_000
x, y = gaussian_pairs(0.9, n, repeats)
hard = {
    "uniform channel": (uniform_pairs(0.1, n, repeats), theory.uniform_channel_mi(0.1).item(), {}),
    "cubed Gaussians": ((x**3, y**3), theory.gaussian_mi(0.9).item(), {}),
    "ten clusters": (clusters(n, repeats), math.log(10), {}),
    "cubed, by rank": ((x**3, y**3), theory.gaussian_mi(0.9).item(), {"scale": "rank"}),
    "clusters, by rank": (clusters(n, repeats), math.log(10), {"scale": "rank"}),
}
lines = [f"error ± standard deviation over {repeats} samples of n = {n:,}, in nats"]
lines.append(f"{'':17s}{'truth':>6s}" + "".join(f"{name:>19s}" for name in settings))
trials = {}
for name, (pairs, truth, options) in hard.items():
    for label, (estimator, own) in settings.items():
        trials[name, label] = repeated(estimator, *pairs, **own, **options) - truth
    cells = (f"{trials[name, label].mean():+11.3f} ± {trials[name, label].std():.3f}" for label in settings)
    lines.append(f"{name:17s}{truth:6.3f}" + "".join(cells))
print("\n".join(lines))
assert trials["cubed Gaussians", "kernels"].mean() < -0.05, "one bandwidth cannot serve a peak and a tail"
assert abs(trials["cubed, by rank", "kernels"].mean()) < 0.02, "ranks mend that"
assert trials["ten clusters", "kernels"].mean() > 0.5, "a kernel that is too long sees one long Gaussian"
assert all(abs(trials[name, "KSG, k = 3"].mean()) < 0.06 for name in hard)

# %% [markdown]
# Read it by columns. KSG does well everywhere. Kernels need light tails, which ranks give them. And see what they do to
# clusters: they read *more* than there is. From a distance ten clusters along a diagonal look like one long, thin
# Gaussian, whose mutual information is $-\frac12 \log(1 - 0.9997^2) = 3.7$ nats, and a kernel shaped like that is too
# long to see the gaps. The histogram doesn't mind tails, since it takes ranks anyway, and reads channels and clusters
# at its own resolution. MINE, which was trained for 300 steps only, stays below the truth in every row. Hence a rule of
# thumb:
#
# | | trust it for | mind |
# |---|---|---|
# | KSG | a first answer to anything of low dimension | noise; repeated values; its standard error knows no bias |
# | kernels | smooth data, and small values: little noise near independence | tails (take ranks), clusters |
# | histogram | thousands of slices; comparing data sets at one resolution | strong dependence |
# | MINE | vectors, if there are many pairs for each dimension, and time | overfitting: its held-out curve falls again |
#
# Better still: use two whose faults differ. That they agree is a good sign and no proof: on the clusters histogram
# and MINE agree, and both are 0.3 too low. Change the resolution as well, and see whether the number moves.

# %% [markdown]
# ## What about 512 dimensions?
#
# Features are vectors. KSG takes vectors too, and so does MINE. But a neighbour is only near if it is near in
# *every* coordinate, and in many dimensions nobody is. Give each of $d$ coordinates of $X$ a partner in $Y$ so that the
# total stays at one nat, and look:

# %% tags=["hide-input"]
dimensions, n = (1, 2, 4, 8, 16, 32), 2000
vector_errors = []
for d in dimensions:
    rho = math.sqrt(-math.expm1(-2 / d))  # 1/d nats a coordinate
    x, y = gaussian_pairs(rho, n, 3 * d)
    parts = [slice(i * d, (i + 1) * d) for i in range(3)]
    vector_errors.append([mi.mi.ksg(x[:, p], y[:, p], baseline=False).value for p in parts])
values = torch.tensor(vector_errors)
by_mine = []
for d in dimensions:
    x, y = gaussian_pairs(math.sqrt(-math.expm1(-2 / d)), n, d)
    by_mine.append(mi.mi.mine(x, y, steps=500, baseline=False, seed=seed).value)
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(5.8, 3.2))
    axes.errorbar(dimensions, values.mean(1), yerr=values.std(1), fmt="o-", capsize=3, label="KSG, n = 2,000")
    axes.plot(dimensions, by_mine, "s-", label="MINE, n = 2,000, one sample each")
    axes.axhline(1, color="black", linestyle="--", linewidth=1, label="truth")
    axes.set_xscale("log", base=2)
    axes.set_xticks(dimensions, dimensions)
    axes.set(xlabel="dimensions a side", ylabel="estimate (nats)", ylim=(-0.35, 1.15))
    axes.legend(loc="lower left")
    plt.close(figure)
assert values[-1].mean() < 0.5 * values[0].mean()
plots.show(
    figure,
    "KSG of vectors that share one nat, against their dimension: right in one and two dimensions, less than half of "
    "it in 32. Mean and standard deviation of three samples. MINE falls as well, later, and lies below zero in 32.",
)

# %% [markdown]
# In 32 dimensions MINE overfits: two thousand pairs are soon learnt by heart, and its bound on the held-out ones is
# negative.
#
# So look at vectors through slits. Draw a random direction $\theta$ for $X$ and, independently, $\varphi$ for $Y$, both
# of length one; estimate the mutual information of the two *numbers* $\theta^\top X$ and $\varphi^\top Y$; repeat, and
# take the mean. This is *sliced mutual information*, sliced MI in figures (Goldfeld and Greenewald
# [2021](https://arxiv.org/abs/2110.05279)):
#
# $$SI(X; Y) = \mathbb{E}_{\theta, \varphi}\, I(\theta^\top X;\; \varphi^\top Y).$$
#
# It is zero exactly if $X$ and $Y$ are independent, by data processing it is never more than $I(X; Y)$, and each slice
# is a problem that we can solve. It is what the paper measures. It is also *another quantity*: rotations of either side
# leave it alone, but other invertible maps, such as stretching one coordinate, change it. And it is small. For $X \sim
# N(0, I_d)$, and $Y$ of the same kind whose coordinates have correlation $\rho$ with those of $X$, a slice is a
# Gaussian pair with correlation $\rho\, \theta^\top \varphi$. Two random directions in $d$ dimensions are nearly
# orthogonal: $\theta^\top\varphi$ is of size $1/\sqrt d$, so that
#
# $$SI = \frac12 \sum_{m \ge 1} \frac{\rho^{2m}}{m} \frac{(1/2)_m}{(d/2)_m} \approx \frac{\rho^2}{2d},$$
#
# while $I(X; Y)$ grows with $d$. Here $(a)_m = a (a + 1) \cdots (a + m - 1)$.

# %%
d, rho, slices = 3, 0.9, 2000
x, y = gaussian_pairs(rho, 5000, d)
theta, phi = mi.mi.directions(slices, d, d, seed=seed)
estimate = mi.mutual_information(x, y, estimator="histogram", slices=(theta, phi), seed=seed)
eye = torch.eye(d, dtype=torch.float64)
covariance = torch.cat((torch.cat((eye, rho * eye), 1), torch.cat((rho * eye, eye), 1)))
of_these = theory.gaussian_slices_mi(theta, phi, covariance).mean().item()
of_all = theory.sliced_gaussian_mi(d, rho).item()
print(estimate)
print(f"the same {slices:,} slices in closed form {of_these:.4f}, all slices {of_all:.4f} nats")
assert abs(of_these - of_all) < 4 * estimate.stderr
assert abs(estimate.value - of_these) < 0.01

# %% [markdown]
# The line that the library prints has the value, its standard error, and in brackets the number of pairs and slices,
# the reading for shuffled pairs (`baseline`), and the *ceiling*, the most that this instrument can read: $\log 32$ for
# 32 bins. All are attributes of the estimate, as are the single slices (`per_slice`). Without slices the standard error
# is over points. It never contains the bias; of that the shuffled reading tells something, as here, where it explains
# most of the difference to the closed form.
#
# Two errors must be told apart here: the estimator's, which the *same slices'* closed form shows, and that of having
# drawn these slices and not others, which the standard error is about. Now count dimensions up to 512, the width of a
# ResNet-18's features.

# %% tags=["hide-input"]
dimensions = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
curve = [theory.sliced_gaussian_mi(int(d), 0.9).item() for d in dimensions]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(6.6, 3.6))
    axes.plot(dimensions, curve, "o-", markersize=4, label="sliced MI, ρ = 0.9")
    for n, style in ((10_000, "--"), (50_000, ":")):
        bias = 31**2 / (2 * n)
        axes.axhline(bias, color=plots.COLOURS[1], linestyle=style, label=f"bias of a plug-in histogram, n = {n:,}")
    axes.set(xlabel="dimensions a side", ylabel="nats", xscale="log", yscale="log")
    axes.set_xticks(dimensions, dimensions.tolist(), rotation=45)
    axes.minorticks_off()
    axes.legend(loc="lower left", fontsize=9)
    plt.close(figure)
print(f"512 dimensions: sliced MI {curve[9]:.5f} nats; bias of 32 × 32 bins at n = 50,000: {31**2 / 1e5:.5f} nats")
assert curve[9] < 31**2 / 1e5
plots.show(
    figure,
    "Sliced mutual information of Gaussian vectors falls in proportion to one over the dimension, and from about 40 "
    "dimensions on lies below the bias of a plug-in histogram of 50,000 pairs.",
)

# %% [markdown]
# In 512 dimensions the truth is 0.0008 nats, a twelfth of what a plug-in histogram of 50,000 pairs reads for
# independent data. It drowns. What floats?

# %% [markdown]
# ## How do I know that a small number is not nothing?
#
# Shuffle. Permute the rows of $Y$: the marginals stay, all dependence goes, and what the estimator now reads is its
# bias for independent data, and its noise. The library does that with every estimate (`baseline`). And never clip
# negative slices at zero: the mean of clipped noise is positive.

# %%
d, n, rho, slices = 512, 20_000, 0.9, 300
generator = torch.Generator().manual_seed(seed)
x, noise = torch.randn(2, n, d, generator=generator)
y = rho * x + math.sqrt(1 - rho**2) * noise
truth = theory.sliced_gaussian_mi(d, rho).item()
contenders = {
    "32 bins of equal width, plug-in": ("histogram", {"binning": "width", "correct": False}),
    "32 bins by rank, plug-in": ("histogram", {"correct": False}),
    "32 bins by rank, corrected": ("histogram", {}),
    "16 bins by rank, corrected": ("histogram", {"bins": 16}),
    "kernels": ("kde", {}),
    "KSG": ("ksg", {}),
}
lines = [f"truth {truth:.5f} nats; {slices} slices, n = {n:,}, d = {d}"]
lines.append(f"{'':32s}{'pairs':>18s}{'shuffled':>21s}{'clipped':>10s}{'time':>8s}")
drowning = {}
for name, (estimator, options) in contenders.items():
    start = time.perf_counter()
    e = mi.mutual_information(x, y, estimator=estimator, slices=slices, seed=seed, device=device, **options)
    drowning[name] = e
    lines.append(
        f"{name:32s}{e.value:+.5f} ± {e.stderr:.5f}   {e.baseline:+.5f} ± {e.baseline_stderr:.5f}"
        f"{e.per_slice.clamp_min(0).mean():10.5f}{time.perf_counter() - start:6.1f} s"
    )
print("\n".join(lines))

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(7.2, 3.2))
    for row, (_name, e) in enumerate(drowning.items()):
        for value, error, colour, label, shift in (
            (e.value, e.stderr, plots.COLOURS[0], "pairs", 0.12),
            (e.baseline, e.baseline_stderr, plots.COLOURS[1], "shuffled", -0.12),
        ):
            axes.errorbar(
                value, row + shift, xerr=error, fmt="o", color=colour, capsize=3, label=label if row == 0 else ""
            )
    axes.axvline(truth, color="black", linestyle="--", linewidth=1, label="truth")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(drowning)), list(drowning))
    axes.invert_yaxis()
    axes.set_xscale("symlog", linthresh=0.002)
    axes.set_xticks([-0.001, 0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05])
    axes.set_xticklabels(["−0.001", "0", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05"])
    axes.minorticks_off()
    axes.set_xlabel("sliced mutual information (nats; linear up to 0.002, then logarithmic)")
    axes.legend(loc="lower right", fontsize=9)
    plt.close(figure)
for name in ("16 bins by rank, corrected", "kernels", "KSG"):
    e = drowning[name]
    assert abs(e.value - truth) < 3 * e.stderr, name
    assert abs(e.baseline) < 4 * e.baseline_stderr, name
for name in ("32 bins of equal width, plug-in", "32 bins by rank, plug-in"):
    assert drowning[name].value > 10 * truth
plots.show(
    figure,
    "Readings for pairs and for shuffled pairs in 512 dimensions: plug-in histograms read much too much for both; "
    "the corrected histogram, kernels and KSG lie near the truth, and near zero when shuffled.",
)

# %% [markdown]
# The plug-in histograms read twenty times the truth and more, for the shuffled pairs as well, and only the difference
# of the two means anything. The corrected ones are near where they should be; with 32 bins and 20 pairs a box the
# shuffled baseline shows what Miller and Madow left over, which is of the order of $B^4 / 12 n^2 \approx 0.0002$ nats,
# and with 16 bins is nothing. Error bars are standard errors over slices. Note KSG's noise: the standard deviation of a
# single slice is several times the truth here, so it asks for many slices. And note what clipping the negative ones
# would have done.
#
# Is it a pity that sliced values are so small? Directions that carry little variance hide in a random slice behind
# those that carry much. `whiten=True` scales all principal components to variance one first, and `whiten=10` keeps only
# the first ten. That changes the quantity, so say so, and it can help or harm. Here the signal is in the four strongest
# of 64 directions:

# %%
generator = torch.Generator().manual_seed(seed)
x, noise = torch.randn(2, 10_000, 64, generator=generator)
x[:, :4] *= 5  # four strong directions …
y = 5 * noise
y[:, :4] += x[:, :4]  # … which are the only ones that y sees
for whiten in (False, 4, True):
    e = mi.mutual_information(x, y, estimator="histogram", slices=500, whiten=whiten, seed=seed)
    print(f"whiten={whiten!s:5s} {e}")

# %% [markdown]
# Keeping only the four raises the signal more than tenfold; whitening all 64 dilutes it almost to the baseline. Whiten
# to the directions that you have a reason to look at.
#
# **Remember:** high-dimensional mutual information is measured through slices, and a sliced value means nothing without
# its shuffled baseline and its standard error.

# %% [markdown]
# ## Did the information fall, or the entropy?
#
# $I(X; Y) \le H(Y)$: a discrete feature, or one seen at a fixed resolution, that takes few values can't tell much. If a
# poisoned network's features share less with the clean ones, that may be all there is to it. `mi.information` gives the
# entropies beside the information, from the same estimate, so that $I = H(X) + H(Y) - H(X, Y)$ holds exactly. Take a
# feature $X$ and two ways to spoil it: one *collapses* it to (nearly) its sign, the other *blurs* it with noise.

# %%
generator = torch.Generator().manual_seed(seed)
feature, noise = torch.randn(2, 20_000, generator=generator)
collapsed = torch.where(feature + 0.2 * noise > 0, 1.0, -1.0) + 0.01 * torch.randn(20_000, generator=generator)
blurred = feature + 0.69 * noise
print(f"{'':10s}{'I':>8s}{'H(X)':>8s}{'H(Y)':>8s}{'H(X, Y)':>9s}{'I/√(H(X) H(Y))':>17s}   (nats, bins of equal width)")
found = {}
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message=".*can't read more than")  # that it is near is the point
    for name, spoilt in {"collapsed": collapsed, "blurred": blurred}.items():
        found[name] = i = mi.information(feature, spoilt)
        print(
            f"{name:10s}{i.mutual_information.value:8.3f}{i.entropy_x:8.3f}{i.entropy_y:8.3f}{i.joint_entropy:9.3f}"
            f"{i.normalised:17.3f}"
        )
assert found["collapsed"].entropy_y < 0.5 * found["blurred"].entropy_y
assert found["collapsed"].normalised > found["blurred"].normalised
assert abs(found["collapsed"].mutual_information.value - found["blurred"].mutual_information.value) < 0.05

# %% [markdown]
# Both tell about as much of $X$. But the collapsed feature has little entropy and spends most of it on $X$; the blurred
# one has a lot and wastes it. The information alone would not have told them apart. (These are discrete entropies, of
# 32 bins of equal width over each side's range; they and the normalised value depend on the bins.)

# %% [markdown]
# ## What does it say about pictures?
#
# Enough referees. Train a small network for one epoch on clean pictures of clothes, Fashion-MNIST, and compare its
# features of ten thousand pictures with those of the same pictures under random noise of growing size. (Features are
# here the output of the network's global average pooling, 64 numbers a picture. The next chapters explain the calls.)
# The network is a deterministic map, and
# so is the noise once it is drawn; each number is, as the last chapter warned, one at a resolution. This is for
# calibration only: what *unlearnable* noise does is the matter of later chapters.

# %%
run = mi.profile("cpu")
train, test = mi.load(run.data)
network = mi.build(run.model, train, seed=seed)
mi.fit(network, train, epochs=1, crop=run.victim["crop"], seed=seed)
clean = mi.features(network, train)
spectrum = torch.linalg.eigvalsh(torch.cov(clean.double().T))
share = (spectrum[-3:].sum() / spectrum.sum()).item()
print(f"{clean.shape[0]:,} pictures, {clean.shape[1]} features, of whose variance 3 directions hold {share:.0%}")
instruments = {
    "KSG, k = 3": ("ksg", {}),
    "kernels": ("kde", {}),
    "kernels of half the width": ("kde", {"bandwidth": 0.5}),
    "histogram, 32 bins": ("histogram", {}),
    "histogram, 16 bins": ("histogram", {"bins": 16}),
}
budgets, pictures = (4, 8, 16, 32, 64), {}
for budget in budgets:
    noise = mi.craft("random", train, epsilon=budget / 255, seed=seed)
    noisy = mi.features(network, train.with_(noise))
    for name, (estimator, options) in instruments.items():
        pictures[name, budget] = mi.mutual_information(
            clean, noisy, estimator=estimator, slices=200, seed=seed, baseline=budget == 4, **options
        )
lines = ["sliced mutual information in nats, 200 slices; at ±4 also its standard error, and pictures shuffled"]
lines.append(f"{'':25s}" + "".join(f"{f'±{budget}':>7s}" for budget in budgets) + f"{'error':>9s}{'shuffled':>10s}")
for name in instruments:
    row = "".join(f"{pictures[name, budget].value:7.3f}" for budget in budgets)
    first = pictures[name, 4]
    lines.append(f"{name:25s}{row}{first.stderr:9.3f}{first.baseline:+10.4f}")
print("\n".join(lines))

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.4))
    for name, marker in zip(instruments, "osvD^", strict=True):
        values = [pictures[name, budget].value for budget in budgets]
        left.plot(budgets, values, marker + "-", markersize=4)
        ratios = torch.stack([pictures[name, budget].per_slice for budget in budgets])
        fall = ratios.sum(1) / ratios[0].sum()
        # Standard error of a ratio of means over the same slices
        error = (ratios - fall[:, None] * ratios[0]).std(1) / math.sqrt(200) / ratios[0].mean()
        right.errorbar(budgets, fall, yerr=error, fmt=marker + "-", markersize=4, capsize=2, label=name)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(budgets, budgets)
        axes.set(xlabel="largest change of a pixel (of 255 levels)")
    left.set(ylabel="sliced MI (nats)", ylim=(0, None))
    right.set(ylabel="as a share of that at ±4")
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    plt.close(figure)
for name in instruments:
    assert pictures[name, 64].value < pictures[name, 16].value < pictures[name, 4].value
    assert abs(pictures[name, 4].baseline) < 0.01 * pictures[name, 4].value
assert pictures["kernels", 4].value < pictures["kernels of half the width", 4].value < pictures["KSG, k = 3", 4].value
assert pictures["histogram, 16 bins", 4].value < pictures["histogram, 32 bins", 4].value
plots.show(
    figure,
    "Sliced mutual information of features of clean and of noisy pictures by five instruments. Left, in nats: they "
    "differ in height. Right, relative to the smallest noise: they fall almost alike.",
)

# %% [markdown]
# These values are large for 64 dimensions, since a few directions hold most of the variance, and every random slice
# sees mostly those. Look at the left panel first. All baselines are nearly zero, all five instruments are corrected for
# what can be corrected, and they do *not* agree: sixteen bins read less than thirty-two, wide kernels less than narrow
# ones, and KSG, which resolves most, reads most. That is the resolution speaking; nobody is wrong. So a value of sliced
# mutual information without its estimator and settings says little, and two papers' values are not to be compared.
#
# The right panel is what survives: relative to the smallest noise, the five agree to within a few per cent. From ±4 to
# ±8 hardly anything changes; ±64 costs about a tenth. Comparisons at one resolution, on one scale, at one $n$: that
# is what this book will use. (Error bars on the right are standard errors over slices of the ratio; each ratio uses the
# same slices twice, which is why it is known better than the heights are.)

# %% [markdown]
# ## What does it cost?
#
# A figure with ten methods, three seeds and a thousand slices needs tens of thousands of estimates. The library's
# loops are compiled; here they are beside the widely used implementation of KSG in scikit-learn, on the same data in
# the same run:

# %%
from sklearn.feature_selection import mutual_info_regression

n, count = 20_000, 8
x, y = gaussian_pairs(0.6, n, count)
repeated("ksg", x[:100], y[:100])  # compiles
start = time.perf_counter()
ours = repeated("ksg", x, y)
our_time = (time.perf_counter() - start) / count
start = time.perf_counter()
theirs = [
    mutual_info_regression(x[:, i : i + 1].numpy(), y[:, i].numpy(), n_neighbors=3, random_state=seed)[0]
    for i in range(2)
]
their_time = (time.perf_counter() - start) / 2
print(f"KSG, n = {n:,}, {torch.get_num_threads()} threads: {1000 * our_time:.1f} ms a slice, {count} slices at once")
print(f"scikit-learn, one process: {1000 * their_time:.1f} ms a slice; ratio {their_time / our_time:.0f}")
print(
    "largest difference of the values:", f"{max(abs(a - b) for a, b in zip(ours.tolist(), theirs, strict=False)):.1e}"
)
assert max(abs(a - b) for a, b in zip(ours.tolist(), theirs, strict=False)) < 2e-3

# %% [markdown]
# `benchmarks/mi.py` in the repository compares all estimators with all peers we know, in time, memory and error. No GPU
# result recorded yet.

# %% [markdown]
# ## What to remember
#
# - An estimate has a bias, a noise and a ceiling. Ask for all three; the library reports `baseline`, `stderr` and
#   `ceiling`.
# - Histogram: fast, of fixed resolution, biased by $(B - 1)^2/2n$ near independence unless corrected. Kernels: precise
#   where densities are smooth. KSG: adapts, hardly biased for pairs of numbers, noisy. MINE: vectors, a lower bound
#   (read with noise), after a training.
# - Scale matters to estimators although it doesn't to mutual information: standardise, or take ranks.
# - In many dimensions: slices. Another quantity, and a small one: never without a shuffled baseline.
# - Report entropies too, so that "the information fell" can be told from "the entropy fell".
#
# ## Exercises
#
# **1.** Derive the plug-in histogram's bias for independent variables, $(B-1)^2/2n$, from the bias $-(K - 1)/2n$ of an
# entropy. At which $n$ does a $64 \times 64$ table read 0.01 nats on average for independent variables?
#
# <details><summary>Solution</summary>
#
# $\hat I = \hat H(X) + \hat H(Y) - \hat H(X, Y)$ has the bias $\frac{-(B-1) - (B-1) + (B^2 - 1)}{2n} = \frac{B^2 - 2B +
# 1}{2n}$. With $B = 64$: $63^2 / 2n = 0.01$ at $n = 198{,}450$. (A marginal cut by rank is known without error, so its
# entropy has no bias at all. Then where does the $-2(B-1)$ come from? From the table, whose row and column sums are
# fixed: it has only $(B-1)^2$ free cells.)
#
# </details>
#
# **2.** What does KSG read for $Y = X$, for any continuous $X$? Why is that the most it can read?
#
# <details><summary>Solution</summary>
#
# $|\Delta x| = |\Delta y|$ for every two points, and so is their distance. Hence $\varepsilon_i$ reaches to the $k$-th
# neighbour along $x$, and strictly nearer are $k - 1$ points: $n_{x,i} = n_{y,i} = k - 1$, and $\hat I = \psi(k) +
# \psi(n) - 2\psi(k) = \psi(n) - \psi(k)$. In general the $k - 1$ points strictly inside the square lie inside both
# shadows, so that neither count is ever smaller (as long as no two distances are equal), and $\psi$ increases. At $n =
# 50{,}000$ and $k = 3$ that is 9.90 nats, although the truth is infinite.
#
# </details>
#
# **3.** Multiply $x$ by 1000 and call `mi.mi.ksg(1000 * x, y, scale="none")` for a Gaussian pair of correlation 0.9.
# What happens, and why?
#
# <details><summary>Solution</summary>
#
# ```python
# x, y = gaussian_pairs(0.9, 5000, 1)
# for scale in ("standard", "none"):
#     print(scale, mi.mi.ksg(1000 * x, y, scale=scale))
# ```
#
# It reads less: 0.423 nats instead of 0.846. Squares that are 1000 times too wide in $y$'s direction contain neighbours
# in $x$ alone: in units of $y$, $\varepsilon_i$ is so large that $y$ hardly restricts it, and $y$'s finer structure
# inside that interval is lost.
#
# </details>
#
# **4.** Somebody reports a sliced mutual information of 0.012 nats between 512-dimensional features of 10,000 clean and
# poisoned pictures, by a 50-bin histogram without correction. What do you ask?
#
# <details><summary>Solution</summary>
#
# For the shuffled baseline. With 50 bins and $n = 10{,}000$ the bias is $49^2 / 20{,}000 = 0.12$ nats for independent
# variables by rank: ten times the value. So bins of equal width were used, on heavy-tailed slices that fill few of
# them, or something was subtracted. The number can't be compared with one of other data, other bins or another $n$.
#
# </details>
#
# **5.** Slices use *independent* directions $\theta$ and $\varphi$. For paired features $g(X), g(X')$ of one network,
# wouldn't $\varphi = \theta$ be more natural? Try it: `slices=(theta, theta)` on the features above.
#
# <details><summary>Solution</summary>
#
# ```python
# theta, phi = mi.mi.directions(200, clean.shape[1], clean.shape[1], seed=seed)
# noisy = mi.features(network, train.with_(mi.craft("random", train, epsilon=8 / 255, seed=seed)))
# for pair in ((theta, phi), (theta, theta)):
#     print(mi.mutual_information(clean, noisy, slices=pair))
# ```
#
# It reads much more, since the same direction is compared with itself; it sees small noise well. But it is another
# quantity: it is zero for some dependent pairs (turn two independent Gaussian coordinates by a right angle, $Y = (X_2,
# -X_1)$), and it is not what the paper reports. With independent directions nothing depends on the two sides having a
# common basis.
#
# </details>
