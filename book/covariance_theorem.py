# %% [markdown]
# # The Gaussian-covariance theorem
#
# MI-UE asks a network for *narrow classes*: all pictures of shoes should get nearly the same features. Its authors
# (Zhu, Miao, Dong and Gao [2026](https://arxiv.org/abs/2603.03725)) say why: the covariance of poisoned features within
# a class bounds the mutual information of clean and poisoned features. That is a theorem, their Theorem 5.1. Here it is
# proved, tested on real features, taken apart where it says nothing, and replaced by one that assumes less and says
# more. Afterwards you can
#
# - prove that narrow classes leave room for little information, in five steps that you can tick off;
# - say what the constant of the published bound does, and why no features meet its assumption at a finite constant;
# - compute the bound for a trained network, term by term, beside what its features really tell;
# - say what narrow classes do *not* imply: which way the inequality points, and what collapse leaves.
#
# It is about the features and the loss of MI-UE; to see how such noise is made first, read [Building
# MI-UE](building_miue.ipynb) before this chapter. You need entropy, the chain rule, data processing and the Gaussian
# formulas from [What mutual information is](what_is_mi.ipynb), and for the last part the estimators of [Measuring
# it](measuring_mi.ipynb).
#
# **Notation.** $Z = g(X)$ are the features of a clean picture and $Z' = g(X')$ those of its poisoned copy, vectors in
# $\mathbb{R}^d$; $Y$ is the label. Within class $y$, $Z'$ has the mean $\mu_y$, the covariance $\Sigma_y$ and, if there
# is one, the density $p_y$. $\mathbb{E}$ over $Y$ weighs classes by how frequent they are. All information is in nats.

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/covariance_theorem.ipynb)

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
profile = "cpu"  # "gpu" crafts and trains at the paper's size first: for a fast GPU and hours of time
seed = 0

# %% [markdown]
# ## Why could narrow classes matter?
#
# A picture before a formula. Three classes of poisoned features in the plane. Let the clean features be the same,
# $Z = Z'$: so each point tells everything about itself, and the mutual information is infinite, as the [first
# chapter](what_is_mi.ipynb) showed. Now look through a lens that blurs by $\sigma$: we see $Z'_\sigma = Z' + \sigma N$
# with Gaussian noise $N \sim N(0, I)$, drawn as a circle of radius $\sigma$. How much can what we see tell about which
# point it was? In a class that is large beside the circle, a lot. In one that fits into the circle, nothing but the
# class. Move the slider: it shrinks every class around its mean.

# %%
import functools
import math
import warnings

import numpy as np
import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F

import miue_lib as mi
from miue_lib import plots, theory

torch.manual_seed(seed)


def at_resolution(sigma_z, resolution):
    """Covariances of (Z, Z + σN), one a class, from those of Z."""
    noisy = sigma_z + resolution**2 * torch.eye(sigma_z.shape[-1], dtype=sigma_z.dtype)
    return torch.cat((torch.cat((sigma_z, sigma_z), -1), torch.cat((sigma_z, noisy), -1)), -2)


def truth_at(moments, resolution, n=20_000):
    """I(Z; Z + σN) for Gaussian classes with these moments, by Monte Carlo, and what Z + σN tells of the class."""
    twice = torch.cat((moments.means, moments.means), 1)
    joint = at_resolution(moments.covariances, resolution)
    return theory.mixture_mi(moments.shares, twice, joint, moments.means.shape[1], n=n, seed=seed)


shares = torch.full((3,), 1 / 3, dtype=torch.float64)
means = torch.tensor([[-1.2, -0.6], [1.2, -0.5], [0.0, 1.1]], dtype=torch.float64)
maps = torch.tensor([[[0.7, 0.3], [0.0, 0.25]], [[0.3, 0.0], [-0.3, 0.6]], [[0.6, -0.3], [0.3, 0.3]]]).double()
classes = maps @ maps.mT
resolution = 0.25
factors = [1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.12, 0.06, 0.03, 0.01]

lines = {
    name: [] for name in ("I(Z; Z′ + σN)", "bound", "bound, sharper label", "trace form", "without labels", "naive")
}
for factor in factors:
    moments = theory.ClassMoments(shares, means, factor**2 * classes)
    found = truth_at(moments, resolution)
    bound = theory.moments_bound(moments, resolution=resolution)
    sharper = theory.moments_bound(moments, resolution=resolution, label_information=found.label_y.value)
    # The published form with its constant kept at what makes it exact where the slider begins
    entropies = theory.covariance_reduction_bound(moments, constant=0.0)
    if factor == 1:
        constant = found.between.value - entropies
    values = found.between.value, bound.total, sharper.total, bound.trace, bound.unlabelled, entropies + constant
    for line, value in zip(lines.values(), values, strict=True):
        line.append(value)
    assert found.between.value <= min(bound.total, bound.unlabelled) + 3 * found.between.stderr
    assert abs(sharper.total - found.between.value) <= 3 * (found.between.stderr + found.label_y.stderr)

# %% tags=["hide-input"]
points = torch.randn(120, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
label = torch.arange(120) % 3
frames = {}
for i, factor in enumerate(factors):
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.9), width_ratios=(1, 1.25))
        at = means[label] + factor * torch.einsum("nij,nj->ni", maps[label], points)
        for c in range(3):
            left.plot(*at[label == c].T, "o", markersize=3, alpha=0.6, color=plots.COLOURS[c])
            left.add_patch(plt.Circle(means[c].tolist(), resolution, fill=False, linewidth=1.5))
        left.set(xlim=(-2.9, 2.9), ylim=(-2.6, 2.6), aspect="equal", xlabel="feature 1", ylabel="feature 2")
        left.set_title(f"classes at {factor:g} times their size, σ = {resolution:g}", fontsize=10)
        for (name, values), colour in zip(lines.items(), ("black", *plots.COLOURS), strict=False):
            style = "--" if name == "naive" else "-"
            wide = 4 if name == "I(Z; Z′ + σN)" else 1.6
            right.plot(factors, values, style, color=colour, linewidth=wide, label=name, alpha=0.4 if wide == 4 else 1)
            right.plot(factor, values[i], "o", color=colour, markersize=5)
        right.axhline(math.log(3), color="#555555", linewidth=1, linestyle=":")
        right.annotate("H(Y)", (0.011, math.log(3)), xytext=(0, -10), textcoords="offset points", fontsize=8)
        right.set_xscale("log")
        right.invert_xaxis()
        right.set(xlabel="size of the classes", ylabel="nats", ylim=(-1.6, 4.9))
        right.legend(loc="upper center", fontsize=8, ncol=2)
        plt.close(figure)
    frames[
        f"Three classes of features at {factor:g} times their size; mutual information "
        f"{lines['I(Z; Z′ + σN)'][i]:.2f} nats, bound {lines['bound'][i]:.2f}, naive bound {lines['naive'][i]:.2f}"
    ] = figure
plots.slider(frames, label="shrinking")

# %% [markdown]
# What remains at the right end is the class: the mutual information settles near $H(Y) = \log 3$. Five curves move
# along, and this chapter is about them. The solid ones are bounds that we are going to prove; they lie above the thick
# line everywhere, and one of them, with a "sharper label", lies *on* it. The dashed one is the published bound. One of
# its terms, which its authors keep constant, is infinite when $Z = Z'$; here it is set so that the line begins on the
# truth, and then kept. It promises ever less information as the classes shrink, less than zero in the end. Why?

# %% [markdown]
# ## What does the paper claim?
#
# First a lemma: densities that are close have entropies that are close. "Close" is meant by the Kullback–Leibler
# divergence $\mathrm{KL}(q \,\|\, p) = \int q \log \frac{q}{p}$.
#
# ### Lemma 1 (close densities have close entropies)
#
# Let $p$ and $q$ be densities with $\mathrm{KL}(q \,\|\, p) \le \varepsilon < 1$, and let $m \le p \le M$ wherever
# $p > 0$. Then
#
# $$|h(p) - h(q)| \le C \sqrt{\varepsilon}, \qquad C = \sqrt 2 \max_{m \le u \le M} |\log u| + 1.$$
#
# *Proof.*
#
# 1. By definition of entropy, $h(p) - h(q) = \int q \log q - \int p \log p = \int (q - p) \log p + \int q \log
#    \frac{q}{p}$.
# 2. The last integral is $\mathrm{KL}(q \,\|\, p)$, between 0 and $\varepsilon$. Since $\varepsilon < 1$, it is at most
#    $\sqrt\varepsilon$.
# 3. The one before is at most $\max |\log p| \int |q - p|$ in size.
# 4. *Pinsker's inequality*: $\int |q - p| \le \sqrt{2\, \mathrm{KL}(q \,\|\, p)} \le \sqrt{2 \varepsilon}$.
# 5. Together: $\sqrt 2 \max|\log p| \sqrt\varepsilon + \sqrt\varepsilon$. $\blacksquare$
#
# ### Theorem 1 (covariance reduction; Zhu et al. 2026, Theorem 5.1)
#
# For each class $y$ let there be a Gaussian $N_y = N(\mu_y, \Sigma_y)$ with
# $\mathrm{KL}(N_y \,\|\, p_y) \le \varepsilon < 1$, and let $m_y \le p_y \le M_y$ wherever $p_y > 0$. Then
#
# $$I(Z; Z') \;\le\;
# \underbrace{\tfrac d2 \log 2\pi e + \tfrac12\, \mathbb{E} \log\det \Sigma_Y}_{\text{Gaussian entropy}} \;+\;
# \underbrace{\mathbb{E}\, C_Y \sqrt\varepsilon}_{\text{price of not being Gaussian}} \;+\;
# \underbrace{I(Z'; Y) - h(Z' \mid Z)}_{\text{“constant”}},$$
#
# with $C_y = \sqrt2 \max_{m_y \le u \le M_y} |\log u| + 1$.
#
# *Proof.*
#
# 1. $I(Z; Z') = h(Z') - h(Z' \mid Z)$, and $h(Z') = h(Z' \mid Y) + I(Z'; Y)$.
# 2. Lemma 1 in each class, with $p = p_y$ and $q = N_y$: $h(Z' \mid Y = y) \le h(N_y) + C_y \sqrt\varepsilon$.
# 3. $h(N_y) = \frac d2 \log 2\pi e + \frac12 \log\det\Sigma_y$. Take the mean over classes. $\blacksquare$
#
# The authors call the last term constant once the noise and the training are fixed, and conclude: make $\det\Sigma_y$
# small, and the mutual information becomes small. (They prove it by way of a lemma in Cover and Thomas
# ([2006](https://doi.org/10.1002/047174882X)); the proof above arrives at their constant. How they write the last term
# we leave to them; what it has to be for the proof to hold is written out here.)
#
# In code, where the assumption can be met: densities on an interval, with a minimum that is not zero.

# %%
grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)
step = grid[1] - grid[0]


def density(values):
    return values / (values.sum() * step)


def entropy(p):
    return -(torch.xlogy(p, p).sum() * step).item()


q = density(torch.exp(-0.5 * (grid / 0.6) ** 2))  # a Gaussian, cut off at ±1
print(f"{'p':34s}{'KL(q‖p)':>9s}{'|h(p) − h(q)|':>15s}{'C√ε':>9s}")
for name, p in {
    "q with a ripple": density(q * (1 + 0.3 * torch.cos(12 * grid))),
    "a mixture of q and a uniform": density(0.7 * q + 0.3 * density(torch.ones_like(grid))),
    "two bumps": density(torch.exp(-0.5 * ((grid.abs() - 0.4) / 0.25) ** 2)),
}.items():
    divergence = (q * (q / p).log()).sum().item() * step.item()
    allowed = theory.entropy_continuity(divergence, p.min(), p.max()).item()
    apart = abs(entropy(p) - entropy(q))
    print(f"{name:34s}{divergence:9.4f}{apart:15.4f}{allowed:9.4f}")
    assert apart <= allowed

# %% [markdown]
# **Remember:** Theorem 1 is a sum: Gaussian entropy of the classes, a price for not being Gaussian, and a term that is
# not looked at.

# %% [markdown]
# ## What does the price come to?
#
# Look at $C_y$. It wants a lower bound $m_y > 0$ for the density wherever the density is not zero, since $|\log m_y|$
# grows without limit as $m_y \to 0$.
#
# ### Proposition 1 (assumption and constant exclude each other)
#
# For a Gaussian $N_y$ with a regular covariance, either $\mathrm{KL}(N_y \,\|\, p_y) = \infty$, or $m_y = 0$ and
# $C_y = \infty$. So unless $p_y$ is that very Gaussian ($\varepsilon = 0$, and nothing to pay), Theorem 1 either does
# not apply or bounds nothing.
#
# *Proof.* Let $\mathrm{KL}(N_y \,\|\, p_y) < \infty$. A Gaussian density is positive everywhere, so $p_y > 0$ almost
# everywhere, or $\int N_y \log \frac{N_y}{p_y}$ would be infinite. If now $p_y \ge m_y > 0$ almost everywhere on
# $\mathbb{R}^d$, its integral would be infinite instead of 1. Hence $m_y = 0$. $\blacksquare$
#
# Both cases occur. Features that come out of a ReLU are never negative, where a Gaussian puts much of its mass: the
# divergence is infinite. Features on the whole of $\mathbb{R}^d$ have a density that gets arbitrarily small.
#
# Could one cut off the tails, as in the cell above? Give the theorem a chance: let $p_y$ be a standard Gaussian, up to
# a divergence $\varepsilon$, cut off at the ball that holds 99 % of it, and cut off the Gaussian that it is compared
# with likewise. The constant depends on the unit of measurement: features divided by ten have a density $10^d$ times as
# high. So also take the unit in which it is smallest, where $\log m = -\log M$. How small must $\varepsilon$ be for the
# price to be one nat?

# %%
print(f"{'':5s}{'':8s}{'unit variance':>20s}{'the best unit':>20s}")
print(f"{'d':>5s}{'radius':>8s}{'C':>10s}{'ε':>10s}{'C':>10s}{'ε':>10s}")
prices = {}
generator = torch.Generator().manual_seed(seed)
for d in (1, 2, 8, 64, 512):
    radius = torch.randn(20_000, d, generator=generator, dtype=torch.float64).norm(dim=1).quantile(0.99).item()
    log_most = -d / 2 * math.log(2 * math.pi) - math.log(0.99)
    plain = math.sqrt(2) * max(abs(log_most), abs(log_most - radius**2 / 2)) + 1
    prices[d] = math.sqrt(2) * radius**2 / 4 + 1
    print(f"{d:5d}{radius:8.2f}{plain:10.1f}{plain**-2:10.1e}{prices[d]:10.1f}{prices[d] ** -2:10.1e}")
assert prices[512] > 100

# %% [markdown]
# For the 64 features of our victims below, the classes would have to be Gaussian to within a thousandth of a nat, even
# in the best unit; for the 512 of a ResNet-18, to within some hundred-thousandths. We are going to measure how far they
# are. And that the constant depends on the unit at all is a warning, since no mutual information does.
#
# **Remember:** the published bound asks for a Gaussian and for a density with a positive minimum. Only an exact
# Gaussian needs no minimum, and nothing else near one has it.

# %% [markdown]
# ## Must the classes be Gaussian at all?
#
# No, if the divergence is taken the other way round. In [What mutual information is](what_is_mi.ipynb) we saw that the
# Gaussian has the largest entropy of all distributions with its covariance. Here is by how much:
#
# ### Lemma 2 (the Gaussian has the most entropy)
#
# Let $p$ have the mean $\mu$ and the regular covariance $\Sigma$. Then $h(p) = h(N(\mu, \Sigma)) - \mathrm{KL}(p \,\|\,
# N(\mu, \Sigma)) \le \frac12 \log\bigl((2\pi e)^d \det\Sigma\bigr)$.
#
# *Proof.* $\mathrm{KL}(p \,\|\, N) = -h(p) - \int p \log N$. The logarithm of a Gaussian density is a quadratic
# function, and $p$ and $N$ have the same mean and covariance, so $\int p \log N = \int N \log N = -h(N)$.
# $\blacksquare$
#
# So step 2 of Theorem 1 holds with $\varepsilon = 0$, for every $p_y$ with a covariance: no closeness, no $C_y$. Being
# far from Gaussian only *lowers* the entropy. That mends the middle term. The last one is left: $-h(Z' \mid Z)$.

# %% [markdown]
# ## Is the last term a constant?
#
# It is not, and it need not even be finite. If $Z'$ is a function of $Z$, then $h(Z' \mid Z) = -\infty$, and the bound
# says $I \le \infty$, which is then the truth. And it moves with the features. Shrink them by a factor $a$:
# $Z' \to aZ'$. Mutual information does not change under invertible maps. But $\frac12 \log\det\Sigma_y$ falls by
# $d \log \frac1a$, and $-h(aZ' \mid Z)$ rises by the same. Whoever holds it constant sees the bound fall for nothing:

# %%
n, d = 4000, 6
generator = torch.Generator().manual_seed(seed)
z = torch.randn(n, d, generator=generator, dtype=torch.float64) @ torch.randn(d, d, generator=generator).double() / 2
poisoned = z + 0.5 * torch.randn(n, d, generator=generator, dtype=torch.float64)
one_class = torch.zeros(n, dtype=torch.int64)
truth = theory.gaussian_vector_mi(torch.cov(torch.cat((z, poisoned), 1).T), d).item()
print(f"Gaussian formula {truth:.3f} nats")
print(f"{'features':>9s}{'KSG':>8s}{'naive bound':>13s}{'finite resolution σ = 0.5':>28s}{'σ = 0.5 × scale':>18s}")
at_scale = {}
for scale in (1.0, 0.1, 0.01):
    measured = mi.mutual_information(z, scale * poisoned, baseline=False).value
    naive = theory.covariance_reduction_bound(theory.class_moments(scale * poisoned, one_class), constant=0.0)
    fixed = theory.mi_bound(scale * poisoned, one_class, resolution=0.5).total
    moving = theory.mi_bound(scale * poisoned, one_class, resolution=0.5 * scale).total
    at_scale[scale] = measured, naive, fixed, moving
    print(f"{'× ' + format(scale, 'g'):>9s}{measured:8.3f}{naive:13.2f}{fixed:28.3f}{moving:18.3f}")
assert at_scale[0.01][0] == at_scale[1.0][0] or abs(at_scale[0.01][0] - at_scale[1.0][0]) < 1e-9
assert abs(at_scale[1.0][1] - at_scale[0.01][1] - d * math.log(100)) < 1e-9
assert abs(at_scale[0.01][3] - at_scale[1.0][3]) < 1e-9
assert at_scale[0.01][2] < 0.01 < at_scale[1.0][2]

# %% [markdown]
# KSG, which standardises, reads the same throughout (too little, as it does for vectors). The naive bound, whose
# constant is left at 0, falls by 27.6 nats, which is $6 \log 100$. The last two columns belong to the theorem that
# comes next. It has a resolution $\sigma$ instead of the unknown term. With $\sigma$ fixed it falls as well, and
# rightly: what is smaller than the lens's blur can't be seen. With $\sigma$ shrunk along it stays. So before one
# compares two networks, features have to be brought to one scale, to unit length for example; otherwise the one that
# computes in smaller units wins.
#
# **Remember:** shrinking features alone proves nothing. A bound by covariance needs a resolution, and a resolution
# needs a scale.

# %% [markdown]
# ## The theorem at a resolution
#
# ### Theorem 2 (covariance bounds information at a resolution)
#
# Let $(Z, Z', Y)$ have any joint distribution in which $Z'$ has a covariance within each class. Let $N \sim N(0, I_d)$
# be independent of it, $\sigma > 0$, and $Z'_\sigma = Z' + \sigma N$. Then
#
# $$I(Z; Z'_\sigma) \;\le\;
# \underbrace{\min\{I(Z; Y),\, I(Z'_\sigma; Y)\}}_{\text{label information, at most } H(Y)} \;+\;
# \underbrace{\tfrac12\, \mathbb{E} \log\det\bigl(I + \Sigma_Y / \sigma^2\bigr)}_{\text{covariance}}.$$
#
# *Proof.*
#
# 1. *Bring in the label*, by the chain rule, in one of two ways. $I(Z; Z'_\sigma) \le I(Z; (Z'_\sigma, Y)) = I(Z; Y) +
#    I(Z; Z'_\sigma \mid Y)$, and likewise $I(Z; Z'_\sigma) \le I((Z, Y); Z'_\sigma) = I(Y; Z'_\sigma) + I(Z; Z'_\sigma
#    \mid Y)$.
# 2. *Replace $Z$ by $Z'$*, by data processing. $N$ is independent of everything, so given $Y = y$ the three form a
#    chain $Z \to Z' \to Z'_\sigma$, and $I(Z; Z'_\sigma \mid Y = y) \le I(Z'; Z'_\sigma \mid Y = y)$.
# 3. *Subtract the noise.* $I(Z'; Z'_\sigma \mid Y = y) = h(Z'_\sigma \mid Y = y) - h(Z'_\sigma \mid Z', Y = y) =
#    h(Z'_\sigma \mid Y = y) - h(\sigma N)$. Both are finite: adding noise can't lower an entropy, so
#    $h(\sigma N) \le h(Z'_\sigma \mid Y = y)$, and step 4 bounds it from above.
# 4. *Use Lemma 2.* The covariance of $Z'_\sigma$ in class $y$ is $\Sigma_y + \sigma^2 I$, so $h(Z'_\sigma \mid Y = y)
#    \le \frac12 \log\bigl((2\pi e)^d \det(\Sigma_y + \sigma^2 I)\bigr)$.
# 5. *Take the difference.* $h(\sigma N) = \frac12 \log\bigl((2\pi e)^d \sigma^{2d}\bigr)$, which leaves
#    $\frac12 \log\det(I + \Sigma_y/\sigma^2)$. Take the mean over classes. $\blacksquare$
#
# No Gaussian assumption, no density of $Z'$, no constant. It holds for ReLU features, for collapsed ones whose
# $\Sigma_y$ is singular, and for discrete ones. In particular it holds for a *data set*, whose pictures are drawn with
# equal probability: then $\Sigma_y$ is the covariance of the set itself (divided by the number of its pictures),
# nothing is estimated, and no sampling error enters.
#
# Each of the steps 1, 2 and 4 gives something away, and adding up what they give away gives an equation (with the
# second way in step 1, and $N_y^\sigma = N(\mu_y, \Sigma_y + \sigma^2 I)$):
#
# $$\text{bound} - I(Z; Z'_\sigma) = \underbrace{I(Y; Z'_\sigma \mid Z)}_{\text{label known from } Z' \text{ only}} +
# \underbrace{I(Z'; Z'_\sigma \mid Y) - I(Z; Z'_\sigma \mid Y)}_{\text{what } Z \text{ misses of } Z'} +
# \underbrace{\mathbb{E}\, \mathrm{KL}\bigl(p_{Z'_\sigma \mid Y} \,\|\, N_Y^\sigma\bigr)}_{\text{not being Gaussian}}.$$
#
# So the bound is *tight* where all three vanish: when $Z = Z'$ (or $Z'$ is a function of $Z$) and the classes are
# Gaussian, at every $\sigma$, if the label information is that of $Z'_\sigma$. (That was the curve on top of the thick
# line.) With $H(Y)$ in its place it is exact for a single class, and nearly tight if the class means are many $\sigma$,
# and many class widths, apart; collapsed classes whose means are within $\sigma$ of each other tell less than $H(Y)$.
#
# Three corollaries.
#
# ### Corollary 1 (trace)
#
# $\log\det(I + \Sigma/\sigma^2) \le d \log\bigl(1 + \operatorname{tr}\Sigma / (d\sigma^2)\bigr)$, so $I(Z; Z'_\sigma)
# \le H(Y) + \frac d2\, \mathbb{E} \log\bigl(1 + \frac{\operatorname{tr}\Sigma_Y}{d\sigma^2}\bigr) \le H(Y) + \frac d2
# \log\bigl(1 + \frac{\mathbb{E} \operatorname{tr}\Sigma_Y}{d\sigma^2}\bigr)$.
#
# *Proof.* The determinant is the product of the eigenvalues $1 + \lambda_i/\sigma^2$, and by the inequality of
# arithmetic and geometric means a product is at most the mean to the power $d$. The second step is Jensen's inequality.
# Equality in the first if all $\lambda_i$ are equal (round classes), in the second if all classes have the same trace.
# $\blacksquare$
#
# ### Corollary 2 (without labels)
#
# $I(Z; Z'_\sigma) \le \frac12 \log\det(I + \Sigma/\sigma^2)$ with the covariance $\Sigma$ of $Z'$ over all classes.
#
# *Proof.* Steps 2 to 5 without $Y$. $\blacksquare$ (It is smaller than the bound with $H(Y)$ if $\sigma$ is so large
# that the label is blurred, too.)
#
# ### Corollary 3 (slices)
#
# For unit vectors $\theta$, $\varphi$: $\;I(\theta^\top Z; \varphi^\top Z'_\sigma) \le \min\{I(\theta^\top Z; Y),
# I(\varphi^\top Z'_\sigma; Y)\} + \frac12\, \mathbb{E} \log\bigl(1 + \varphi^\top \Sigma_Y \varphi / \sigma^2\bigr)$.
#
# *Proof.* $\varphi^\top Z'_\sigma = \varphi^\top Z' + \sigma \varphi^\top N$, and $\varphi^\top N$ is a standard
# Gaussian: Theorem 2 for two scalars. $\blacksquare$ Averaged over $\varphi$, the last term is at most
# $\frac12\, \mathbb{E}\log(1 + \operatorname{tr}\Sigma_Y/(d\sigma^2))$ by Jensen: the $d$-th part of the covariance
# term in the trace form.
#
# Does it hold? Sixty random mixtures, in which $Z'$ has more or less in common with $Z$, and twenty where $Z = Z'$. The
# referee is Monte Carlo: densities of mixtures are known, so $\log \frac{p(z, z')}{p(z)\,p(z')}$ can be averaged over
# samples, with a standard error and no bias.


# %% tags=["hide-input"]
def random_mixture(generator, copies):
    """A mixture of (Z, Z′) with 1 to 32 dimensions a side and 2 to 10 classes, and a resolution."""
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    d, k = (int(torch.randint(*limits, (1,), generator=generator)) for limits in ((1, 33), (2, 11)))
    weights = uniform(k) + 0.05
    factors = normal(k, d, 2 * d) / math.sqrt(2 * d) * 10 ** (uniform(k, 1, 1) - 0.5)
    share = 1.0 if copies else uniform(1)
    other = share * factors + (1 - share) * normal(k, d, 2 * d) / math.sqrt(2 * d)
    both = torch.cat((factors, other), 1)
    means = normal(k, d) * 10 ** (2 * uniform(1) - 1.5)
    means = torch.cat((means, means if copies else normal(k, d)), 1)
    ridge = torch.cat((torch.zeros(d), torch.zeros(d) if copies else torch.full((d,), 1e-6))).double()
    return weights / weights.sum(), means, both @ both.mT + torch.diag(ridge), d, float(10 ** (2 * uniform(1) - 1.5))


generator = torch.Generator().manual_seed(seed)
dots = {"anything": [], "Z = Z′": []}
for kind, count in (("anything", 60), ("Z = Z′", 20)):
    for _ in range(count):
        weights, mu, joint, d, sigma = random_mixture(generator, copies=kind == "Z = Z′")
        seen = joint + sigma**2 * torch.diag(torch.cat((torch.zeros(d), torch.ones(d))).double())
        found = theory.mixture_mi(weights, mu, seen, d, n=5000, seed=seed)
        moments = theory.ClassMoments(weights, mu[:, d:], joint[:, d:, d:])
        known = min(max(found.label_x.value, 0), max(found.label_y.value, 0), moments.label_entropy.item())
        bound = theory.moments_bound(moments, resolution=sigma, label_information=known)
        slack = bound.total - found.between.value
        stderr = found.between.stderr + max(found.label_x.stderr, found.label_y.stderr)
        assert slack >= -3 * stderr
        assert found.between.value <= bound.unlabelled + 3 * found.between.stderr
        if kind == "Z = Z′":
            assert slack <= max(0.01 * bound.total, 3 * stderr)
        dots[kind].append((found.between.value, bound.total))

with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(5.6, 4.0))
    for (kind, values), marker in zip(dots.items(), "os", strict=True):
        axes.plot(*np.array(values).T, marker, markersize=4, alpha=0.7, label=kind)
    axes.plot([1e-2, 200], [1e-2, 200], color="#555555", linewidth=1, label="equality")
    axes.set(xscale="log", yscale="log", xlabel="I(Z; Z′ + σN) by Monte Carlo (nats)", ylabel="bound (nats)")
    axes.set(xlim=(1e-2, 200), ylim=(1e-2, 200))
    axes.legend(loc="lower right")
    plt.close(figure)
plots.show(
    figure,
    "Bound against mutual information for 80 random mixtures: those with the same features on both sides lie on the "
    "diagonal, all others on it or above.",
)

# %% [markdown]
# (The tests of the library repeat this with 240 mixtures, three kinds of label information, and distributions that are
# not Gaussian at all.)
#
# **Remember:** at a resolution, information is at most label information plus
# $\frac12 \mathbb{E}\log\det(I + \Sigma_Y/\sigma^2)$. It needs no Gaussian, and is an equality where $Z = Z'$ has
# Gaussian classes.

# %% [markdown]
# ## What has the cosine to do with it?
#
# MI-UE's loss doesn't mention a covariance; it has cosines. For features of unit length that is the same thing.
#
# ### Lemma 3 (trace and cosine)
#
# If $\lVert Z' \rVert = 1$, then $\operatorname{tr}\Sigma_y = 1 - \bar c_y$, where $\bar c_y$ is the mean cosine of two
# pictures of class $y$ drawn independently. (In a data set: over all ordered pairs, each picture with itself included.)
#
# *Proof.* $\operatorname{tr}\Sigma_y = \mathbb{E}\lVert Z' \rVert^2 - \lVert \mu_y \rVert^2 = 1 - \lVert\mu_y\rVert^2$,
# and $\lVert\mu_y\rVert^2 = \mu_y^\top \mu_y = \mathbb{E}\, {Z'_1}^\top Z'_2$ for independent $Z'_1, Z'_2$.
# $\blacksquare$
#
# With Corollary 1, and $\bar c = \mathbb{E}\, \bar c_Y$:
#
# $$I(Z; Z'_\sigma) \;\le\; H(Y) + \frac d2 \log\Bigl(1 + \frac{1 - \bar c}{d \sigma^2}\Bigr).$$
#
# Does the *loss* force $\bar c$ up? With the cosines $c_{jk}$ of pictures $j$ and $k$ of a batch, and a temperature
# $\tau$, its similarity term for picture $j$ is $\ell_j = -\log \frac{\sum_{k:\, y_k = y_j} e^{c_{jk}/\tau}}{\sum_k
# e^{c_{jk}/\tau}}$. It can also be made small by pushing other classes away, so for general features the answer is no.
# But features that end in ReLU and averaging, as ours do, are never negative, and neither are their cosines; there is a
# limit to pushing.
#
# ### Proposition 2 (the loss forces the cosine)
#
# Let no feature be negative, and let a batch hold $K$ classes of equal size. Let $\bar c$ be the mean cosine over all
# ordered pairs within the classes of the batch, self-pairs included. If the mean similarity term is $L$, then
#
# $$\bar c \;\ge\; c(L) = \frac{1}{B} \Bigl(\frac{K - 1}{e^L - 1} - 1\Bigr), \qquad B = e^{1/\tau} - 1.$$
#
# *Proof.*
#
# 1. $\ell_j = \log\bigl(1 + \sum_{\text{other}} e^{c_{jk}/\tau} \big/ \sum_{\text{same}} e^{c_{jk}/\tau}\bigr)$. With
#    $n$ pictures a class, the upper sum has $(K-1)n$ terms, each at least $e^0 = 1$.
# 2. The exponential is convex, so $e^{c/\tau} \le 1 + Bc$ on $[0, 1]$ (its chord), and the lower sum is at most
#    $n(1 + B \bar c_j)$, with $\bar c_j$ the mean cosine of $j$ with its class.
# 3. So $\ell_j \ge f(\bar c_j)$ with $f(c) = \log\bigl(1 + \frac{K-1}{1 + Bc}\bigr)$, which falls and is convex. By
#    Jensen's inequality $L \ge f(\bar c)$; solve for $\bar c$. $\blacksquare$ (It can't be improved: let each class
#    consist of $m$ equally large groups of equal pictures, all groups of all classes at right angles. Then
#    $\bar c = 1/m$, and each step is an equality.)

# %% tags=["hide-input"]
K = 10
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(6.4, 3.4))
    losses = torch.logspace(-4, math.log10(math.log(K)), 400, dtype=torch.float64)
    for tau, style in ((0.1, "-"), (0.2, "--"), (0.5, "-."), (1.0, ":")):
        forced = theory.least_mean_cosine(losses, K, tau)
        inside = (forced <= 1 + 1e-9) & (forced >= 0)
        axes.plot(losses[inside], forced[inside], style, label=f"τ = {tau:g}")
    axes.set(xscale="log", xlabel="similarity loss L (nats)", ylabel="mean cosine, at least", ylim=(0, 1.03))
    axes.legend()
    plt.close(figure)
half = math.log1p((K - 1) / (1 + 0.5 * math.expm1(1 / 0.1)))
print(f"at τ = 0.1 a mean cosine of ½ is forced at a loss of {half:.2e} nats; the least loss is "
      f"{math.log1p((K - 1) * math.exp(-10)):.2e}")  # fmt: skip
assert abs(theory.least_mean_cosine(half, K, 0.1).item() - 0.5) < 1e-9
plots.show(
    figure,
    "The mean cosine within classes that a similarity loss forces, for ten classes and four temperatures: near the "
    "least possible loss it is one, and it falls quickly as the loss grows, at small temperatures at tiny losses.",
)

# %% [markdown]
# Each curve ends at the least loss that its temperature allows, and there the cosine must be 1. But see how soon it
# lets go: at the paper's $\tau = 0.1$ the classes are forced to a mean cosine of ½ only when the loss is below a
# thousandth of a nat. A cold temperature is content once the nearest neighbours agree. (The noise below was crafted at
# $\tau = 0.2$, where ½ is forced at 0.11 nats, and through a surrogate, not the victim.) So it pays to look at the
# covariance itself; a use of MI-UE's *distance term* is that it bounds it (Exercise 4).
#
# **Remember:** for unit length, $\operatorname{tr}\Sigma_y = 1 - \bar c_y$ exactly. The loss forces the cosine only
# near its least value.

# %% [markdown]
# ## Which way does it point?
#
# Small covariance forces the information down to that about the label, at a given resolution. The bound does *not* say
# that small information comes from small covariance, or that a larger bound goes with more information. Four cases, two
# classes in two dimensions:

# %%
pair = torch.full((2,), 0.5, dtype=torch.float64)
two_means = torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
eye = torch.eye(2, dtype=torch.float64)


def case(size, shared, sigma):
    """I(Z; Z′ + σN) and its bound for round classes of this size, of which Z shares a part with Z′."""
    block = size**2 * eye
    joint = torch.cat((torch.cat((block, shared * block), 1), torch.cat((shared * block, block + sigma**2 * eye), 1)))
    mu = torch.cat((two_means, two_means), 1)
    found = theory.mixture_mi(pair, mu, joint.repeat(2, 1, 1), 2, n=50_000, seed=seed)
    bound = theory.moments_bound(theory.ClassMoments(pair, two_means, block.repeat(2, 1, 1)), resolution=sigma)
    return found.between.value, bound.total


cases = {
    "wide classes, copied": (0.3, 1.0, 0.1),
    "narrow classes, copied": (0.01, 1.0, 0.1),
    "wide classes, nothing shared within": (0.3, 0.0, 0.1),
    "narrow classes, copied, finer lens": (0.01, 1.0, 0.003),
}
print(f"{'':38s}{'tr Σ':>8s}{'σ':>7s}{'I':>8s}{'bound':>8s}   (H(Y) = {math.log(2):.3f})")
results = {name: case(*settings) for name, settings in cases.items()}
for name, (size, _, sigma) in cases.items():
    print(f"{name:38s}{2 * size**2:8.4f}{sigma:7.3f}{results[name][0]:8.3f}{results[name][1]:8.3f}")
wide, narrow, unrelated, finer = (results[name] for name in cases)
assert narrow[0] < 0.75 < wide[0]
assert unrelated[0] < 0.75
assert unrelated[1] == wide[1]
assert finer[0] > wide[0]

# %% [markdown]
# Rows one and two are the theorem. Row three has little information and a large bound: classes can be wide and yet
# share nothing with the clean features but the label. Row four is row two through a finer lens, and holds *more* than
# row one: narrow is a word about a scale.
#
# **Remember:** narrow classes are one way to little information. They are neither the only one, nor a way at every
# resolution.

# %% [markdown]
# ## What does collapse leave?
#
# Let $\Sigma_y \to 0$. What remains of the bound is the label information, at most $I(Z; Y)$: what the *clean* features
# still know about the label. Two very different networks look alike here: one whose clean features know the label, and
# one whose clean features know nothing. If the class means of $Z'$ stay many $\sigma$ apart, only in the second case
# has the mutual information become small, and only there is it true that nothing can be learnt from the features: by
# Fano's inequality little label information leaves *every* classifier on $Z$ with many errors.
#
# Can one read $I(Z; Y)$ off the accuracy? Partly. A classifier that is right with probability $a$ proves that $I(Z; Y)$
# is at least so large (Fano). That it is *not more* than so large (Hellman and Raviv 1970; here in the sharp form of
# Kovalevsky) follows only if no other classifier does better:

# %%
uniform = torch.full((10,), 0.1)
print(f"{'accuracy':>9s}{'I(Z; Y) at least':>18s}{'at most, if the best':>22s}   (ten equal classes, nats)")
for a in (0.1, 0.2, 0.45, 0.7, 0.85, 0.95):
    low, high = theory.information_range(a, uniform)
    print(f"{a:9.2f}{low:18.3f}{high:22.3f}")
    assert theory.accuracy_range(low, uniform)[1] >= a - 1e-6
    assert theory.accuracy_range(high, uniform)[0] <= a + 1e-6

# %% [markdown]
# The victim's own head is only one classifier. That it fails on clean pictures does not prove $I(Z; Y)$ small; its
# features may know the label and file it elsewhere. The test is to fit another head to *clean* features. We do that
# next.

# %% [markdown]
# ## What do real features say?
#
# Four kinds of data, as in [Building MI-UE](building_miue.ipynb): clean, random noise, error-minimising noise (EM, an
# earlier method), and MI-UE, at $\varepsilon = 8/255$; but fewer pictures, so that the chapter runs in minutes. On
# each, three *victims* are trained, networks that learn from the published pictures. (`mi.Cache` keeps noise and
# victims on disk; the appendix looks at the same ones.)

# %%
run = mi.profile(profile)
train, test = mi.load(run.data)
train = train.balanced(run.few)
cache = mi.Cache("cache")
names = {"random": "random", "EM": "em", "MI-UE": "miue"}
craft = [
    functools.partial(cache.craft, method, train, epsilon=8 / 255, seed=seed, **run.noise[method])
    for method in names.values()
]
# Side by side, one on each core, as later chapters make them too.
data = {"clean": train} | {name: train.with_(one) for name, one in zip(names, cache.at_once(craft), strict=True)}
fit = [
    functools.partial(cache.fit, run.model, images, test=test, seed=seed + 1 + k, **run.victim)
    for images in data.values()
    for k in range(run.seeds)
]
fitted = list(cache.at_once(fit))
victims, accuracy = {}, {}
for place, name in enumerate(data):
    own = fitted[place * run.seeds :][: run.seeds]
    victims[name] = [victim for victim, _ in own]
    accuracy[name] = [history.test_accuracy[-1] for _, history in own]


def spread(values, digits=3):
    """Mean ± standard deviation over victims."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


print(f"{len(train):,} training pictures, {run.seeds} victims each; accuracy on {len(test):,} clean test pictures:")
for name in data:
    print(f"{name:7s} {spread(accuracy[name])}")

# %% [markdown]
# Is the assumption of Theorem 1 true here? Features end in a ReLU, so none is negative, and
# $\mathrm{KL}(N_y \,\|\, p_y) = \infty$ without looking. To see how far from Gaussian they are in the gentler
# direction, $\mathrm{KL}(p_y \,\|\, N_y)$, look through slices: the mean over random directions $\theta$ of the
# divergence of $\theta^\top Z'$ within a class from the Gaussian with its mean and variance. A slice can only lose
# divergence, so this is a lower bound, in nats. What would an estimate read for truly Gaussian classes? The same
# estimate on Gaussian samples of the same size and covariance says (the null).

# %%
gaussian = {
    name: [
        theory.gaussianity(mi.features(victim, data[name]), train.labels, slices=30, repeats=49, seed=seed)
        for victim in runs
    ]
    for name, runs in victims.items()
}
print(f"{'':7s}{'nats a slice':>15s}{'least … most of a class':>26s}{'null ±':>9s}{'beyond the null':>18s}")
for name, found in gaussian.items():
    away = torch.stack([g.divergence for g in found])
    null = torch.stack([g.null for g in found])
    beyond = sum(int((g.p_value <= 1 / 50).sum()) for g in found)
    limits = f"{away.min():.3f} … {away.max():.3f}"
    print(
        f"{name:7s}{spread(away.mean(1).tolist()):>15s}{limits:>26s}{null.std():9.4f}"
        f"{f'{beyond} of {away.numel()} classes':>18s}"
    )
    assert away.mean() > 5 * null.std()

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(6.8, 3.2))
    for place, found in enumerate(gaussian.values()):
        away = torch.stack([g.divergence for g in found]).flatten().cpu()
        null = torch.stack([g.null for g in found]).flatten().cpu()
        jitter = torch.linspace(-0.2, 0.2, len(away))
        label = ("classes of three victims", "Gaussian samples") if place == 0 else (None, None)
        axes.plot(place + jitter, away, "o", markersize=3, color=plots.COLOURS[0], label=label[0])
        some = null[:: max(1, len(null) // 50)]
        where = place + torch.linspace(-0.2, 0.2, len(some))
        axes.plot(where, some, ".", markersize=2, color=plots.COLOURS[1], label=label[1])
    axes.set_xticks(range(len(gaussian)), list(gaussian))
    axes.set(ylabel="divergence from Gaussian\n(nats a slice)", xlabel="trained on")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    plt.close(figure)
plots.show(
    figure,
    "Divergence of each class's features from a Gaussian for four kinds of training data: far above the band of "
    "Gaussian samples near zero, for all of them.",
)

# %% [markdown]
# (The null's mean is subtracted.) No kind of data has Gaussian classes, clean data neither. MI-UE's are perhaps a third
# farther away than the others', which three victims can't settle. Theorem 2 doesn't mind. Now its terms, on features of
# unit length, at $\sigma = 0.1$ (so that the noise vector $\sigma N$ is about as long as $0.1 \sqrt{d}$, 0.8 for the 64
# features of these networks, beside features of length one). For a data set at a resolution there is a referee:
# $I(Z; Z'_\sigma)$ when a picture is drawn at random from the set. If no two have the same clean features it is the
# information about *which picture* it is, a mixture with one component a picture, and Monte Carlo computes it, together
# with the label information $I(Z'_\sigma; Y)$. (So $Z$ enters only by telling the pictures apart. What a network
# *forgets* of the clean picture can't be seen in a finite set, and this comparison tests the last part of the gap
# alone. In the table the bound takes the label information of $Z'_\sigma$, or Corollary 2 where that is smaller.)

# %%
resolutions = (0.01, 0.03, 0.1, 0.3, 1.0)
rows = {}
for name, images in data.items():
    rows[name] = []
    for victim in victims[name]:
        unit = F.normalize(mi.features(victim, images).double())
        at = {}
        for sigma in resolutions:
            found = theory.resolved_information(unit, train.labels, resolution=sigma, seed=seed)
            label = min(max(found.label.value, 0.0), math.log(len(train.classes)))
            bound = theory.mi_bound(unit, train.labels, resolution=sigma)
            sharper = theory.mi_bound(unit, train.labels, resolution=sigma, label_information=label)
            at[sigma] = {
                "tr Σ": float(theory.class_moments(unit, train.labels).traces.mean()),
                "covariance": bound.covariance,
                "label": label,
                "I": found.picture.value,
                "bound": min(sharper.total, bound.unlabelled),
                "H(Y)": bound.total,
                "trace": bound.trace,
                "unlabelled": bound.unlabelled,
            }
            stderr = found.picture.stderr + found.label.stderr
            assert found.picture.value <= at[sigma]["bound"] + 3 * stderr, "Theorem 2 and Corollary 2"
            assert bound.total <= bound.trace <= bound.mean_trace, "Corollary 1"
            assert abs(theory.cosine_bound(unit, train.labels, resolution=sigma) - bound.mean_trace) < 1e-6, "Lemma 3"
        rows[name].append(at)

columns = {  # title, digits, whether with its standard deviation
    "tr Σ": ("tr Σ", 3, True),
    "I": ("I(Z;Z′+σN)", 2, True),
    "bound": ("bound", 2, True),
    "label": ("= label", 2, True),
    "covariance": ("+ covariance", 2, True),
    "H(Y)": ("with H(Y)", 2, False),
    "trace": ("trace form", 2, False),
    "unlabelled": ("no labels", 2, False),
}
print(f"σ = 0.1, in nats, mean ± sd of {run.seeds} victims")
print(f"{'':7s}" + "".join(f"{title:>{14 if sd else 11}s}" for title, _, sd in columns.values()))
for name, found in rows.items():
    line = f"{name:7s}"
    for key, (_, digits, sd) in columns.items():
        values = [at[0.1][key] for at in found]
        line += f"{spread(values, digits):>14s}" if sd else f"{np.mean(values):11.{digits}f}"
    print(line)
mean_at = {name: {key: np.mean([at[0.1][key] for at in found]) for key in columns} for name, found in rows.items()}
for name in ("EM", "MI-UE"):
    assert mean_at[name]["I"] < mean_at["clean"]["I"], "collapse lowers the information at a resolution"
    assert mean_at[name]["covariance"] < mean_at["clean"]["covariance"]
for name in data:
    assert mean_at[name]["bound"] < 1.2 * mean_at[name]["I"], "the bound is close"

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(7.4, 3.9))
    for (name, found), colour in zip(rows.items(), plots.COLOURS, strict=False):
        for key, style in (("I", "o-"), ("bound", "--")):
            values = np.array([[at[sigma][key] for sigma in resolutions] for at in found])
            axes.errorbar(
                resolutions,
                values.mean(0),
                yerr=values.std(0, ddof=1),
                fmt=style,
                markersize=4,
                linewidth=4 if name == "clean" else 1.3,  # random lies on it
                alpha=0.45 if name == "clean" else 1,
                color=colour,
                label=name if key == "I" else None,
            )
    axes.axhline(math.log(len(train)), color="#555555", linewidth=1, linestyle=":")
    axes.annotate("log N", (1, math.log(len(train))), xytext=(-24, 4), textcoords="offset points", fontsize=8)
    axes.axhline(math.log(10), color="#555555", linewidth=1, linestyle=":")
    axes.annotate("H(Y)", (0.0105, math.log(10)), xytext=(0, 4), textcoords="offset points", fontsize=8)
    axes.plot([], [], "o-", color="black", label="I(Z; Z′ + σN)")
    axes.plot([], [], "--", color="black", label="bound")
    axes.set(xscale="log", yscale="log", xlabel="resolution σ (features have length 1)", ylabel="nats", ylim=(0.2, 60))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    plt.close(figure)
plots.show(
    figure,
    "Information of data sets and its bound against the resolution, for victims of four kinds of data: the bound is "
    "close from 0.1 on, and at fine resolutions far above the information, which can't exceed log N.",
)

# %% [markdown]
# Read the table from the left. EM and MI-UE do what the theorem is about: their classes are narrower, the covariance
# term falls, and with it the information at this resolution. The bound is close, 14 % above the truth for clean data
# and 4 % for the narrow classes of EM. What is that distance made of? Which picture it is settles both the label and
# $Z'$, so the first two parts of the gap are zero, and *all* of it is that the blurred classes are not Gaussian. (With
# $H(Y)$ in place of the label information the bound is a little larger; the trace form, which takes classes for round,
# is 40 % larger than that for clean data; without labels it is larger still.)
#
# The figure says where the bound speaks. At $\sigma = 1$ everything is blurred. At $\sigma = 0.01$ nearly every picture
# can be told from every other, the information is $\log N$, and the bound, which does not know that the set is finite,
# is far above. In between lies the range in which narrowing matters.
#
# Now hold this against accuracy. Do the narrowest classes belong to the most spoilt victims? And what happens to the
# *label* column?


# %%
def order(values):
    return " < ".join(sorted(values, key=values.get))


print("tr Σ:         ", order({name: row["tr Σ"] for name, row in mean_at.items()}))
print("information:  ", order({name: row["I"] for name, row in mean_at.items()}))
print("accuracy:     ", order({name: np.mean(values) for name, values in accuracy.items()}))
for name in ("EM", "MI-UE"):
    assert mean_at[name]["label"] > mean_at["clean"]["label"]
    assert np.mean(accuracy[name]) < np.mean(accuracy["clean"]) - 0.15

# %% [markdown]
# At this size EM leaves the narrower classes, and MI-UE the lower accuracy. (With all 10,000 pictures, in [Building
# MI-UE](building_miue.ipynb), MI-UE's classes are the narrower ones, so the order depends on the size; each noise was
# crafted once, and the ± is over victims only. Clean and random are a tie.) Covariance does what the theorem says to
# the information at a resolution, and that is not accuracy. And the label information of poisoned features goes *up*
# when classes narrow. They tell more about their label, not less; that is what the noise was made for.

# %% [markdown]
# ## Are the features useless, or only the head?
#
# The last question of the theory: what do the *clean* features of these victims still know about the label? Fit a new
# linear head (logistic regression) to clean training pictures, on frozen features, and test it on clean test pictures.
# Its accuracy gives a lower bound on $I(Z; Y)$ by Fano; its cross-entropy gives another one,
# $I(Z; Y) \ge H(Y) - \mathbb{E}[-\log q(y \mid z)]$ for any predicted probabilities $q$ (their divergence from the true
# ones is not negative). As a control, the same with a network that was never trained. Beside them, what the paper
# measures: sliced mutual information of clean and poisoned features.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def new_head(model):
    """Accuracy on clean test pictures of a head fitted to clean training pictures, and its cross-entropy in nats."""
    clean, held_out = (mi.features(model, images).double().cpu().numpy() for images in (train, test))
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=5e-4)).fit(clean, train.labels.cpu())
    y = test.labels.cpu().numpy()
    logs = head.predict_log_proba(held_out)
    return float((logs.argmax(1) == y).mean()), -float(logs[np.arange(len(y)), y].mean())


even = torch.full((len(train.classes),), 1 / len(train.classes))
untrained = [mi.build(run.model, train, seed=seed + 1 + k) for k in range(run.seeds)]
heads = {name: [new_head(victim) for victim in runs] for name, runs in (victims | {"untrained": untrained}).items()}
sliced = {}
for name, images in data.items():
    pairs = [(mi.features(victim, train), mi.features(victim, images)) for victim in victims[name]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sliced[name] = [mi.mutual_information(*pair, slices=200, seed=seed, baseline=False) for pair in pairs]
print(f"{'':10s}{'own head':>16s}{'new head':>16s}{'I(Z;Y) ≥, Fano':>17s}{'≥, entropy':>16s}{'sliced MI, KSG':>17s}")
for name, found in heads.items():
    own = spread(accuracy[name]) if name in accuracy else "–"
    by_fano = [theory.information_range(a, even)[0] for a, _ in found]
    by_entropy = [math.log(len(train.classes)) - loss for _, loss in found]
    measured = spread([e.value for e in sliced[name]]) if name in sliced else "–"
    known = f"{spread(by_fano):>17s}{spread(by_entropy):>16s}"
    print(f"{name:10s}{own:>16s}{spread([a for a, _ in found]):>16s}{known}{measured:>17s}")

mean_head = {name: np.mean([a for a, _ in found]) for name, found in heads.items()}
for name in ("EM", "MI-UE"):
    assert mean_head[name] > np.mean(accuracy[name]) + 0.1, "the features know more than the victim's head shows"
    assert mean_head[name] > mean_head["untrained"] - 0.05

# %% [markdown]
# The victims of EM and MI-UE are lost on clean pictures, and their *features are not*: with a new head they reach 0.81,
# beside 0.85 after training on clean data and 0.72 without any training. (Sandoval-Segura and co-authors
# [2023](https://arxiv.org/abs/2305.19254) found the same with other methods.) So the explanation "little mutual
# information, hence nothing can be learnt" does not describe what happens at this size: $I(Z; Y)$ stays above 1.7 of
# 2.3 nats, and Fano's inequality forbids nothing. (Part of that any network has: the untrained one knows 1.5 nats.) And
# the sliced mutual information of clean and poisoned features, which the paper reports, hardly moves here, while MI-UE
# nearly halves the accuracy. (Its shuffled baseline is below 0.002; the
# [appendix](shift_and_generalisation.ipynb#can-there-be-one-without-the-other) shows what it reads where only the label
# is shared: 0.22.)
#
# What can be said for the theorem, then? Theorem 2 is right, and close: at a resolution, narrowing leaves the label and
# little else. What ruins the victim is that its head listens to the noise. Whether low mutual information *ranks*
# methods, over many of them and at larger sizes, is an empirical question, and this book's later chapters take it up.
# No GPU result recorded yet.

# %% [markdown]
# ## What to remember
#
# - The published bound needs classes close to Gaussian *and* a density with a positive minimum, which exclude each
#   other ([Proposition 1](#proposition-1-assumption-and-constant-exclude-each-other)), and its "constant" moves when
#   features shrink.
# - At a resolution, $I(Z; Z'_\sigma) \le$ label information $+\, \frac12 \mathbb{E}\log\det(I + \Sigma_Y/\sigma^2)$,
#   for any distribution ([Theorem 2](#theorem-2-covariance-bounds-information-at-a-resolution)). Equality for $Z = Z'$
#   with Gaussian classes.
# - For unit length $\operatorname{tr}\Sigma_y = 1 - \bar c_y$, which ties the bound to the loss; the loss forces the
#   cosine only near its least value.
# - Small covariance forces information down to the label's, at a resolution. Not the reverse, and not at every
#   resolution.
# - Collapse leaves what clean features know of the label. Before calling features useless, fit another head.
#
# ## Exercises
#
# **1.** Tick off the proof of Theorem 2 for $Z'$ that is *constant* within each class. What does the bound say, and is
# it right?
#
# <details><summary>Solution</summary>
#
# $\Sigma_y = 0$, so the covariance term is $\frac12\log\det I = 0$, and
# $I(Z; Z'_\sigma) \le \min\{I(Z; Y), I(Z'_\sigma; Y)\}$. Step 2 gives $I(Z'; Z'_\sigma \mid Y) = 0$, as nothing varies
# within a class. It is right, and if $Z$ determines the label it is an equality: $Z'_\sigma$ depends on $Z$ only
# through $Y$, so $I(Z; Z'_\sigma) = I(Y; Z'_\sigma)$. In Theorem 1, $\log\det\Sigma_y = -\infty$, and there is no
# density $p_y$.
#
# </details>
#
# **2.** For which features is Theorem 2 an equality at *every* resolution? Give a family, and check that all three
# parts of the gap vanish.
#
# <details><summary>Solution</summary>
#
# Take $Z = Z'$ with Gaussian classes. Then $Y \to Z \to Z'_\sigma$ is a Markov chain, so $I(Y; Z'_\sigma \mid Z) = 0$;
# $Z$ misses nothing of $Z'$; and $Z'_\sigma$ is Gaussian within each class. All three terms of the gap vanish.
#
# </details>
#
# **3.** Features of $d = 512$ dimensions have unit length and $\operatorname{tr}\Sigma_y = 0.1$ in every class. Compare
# the trace form at $\sigma = 0.05$ with the covariance term if all variance lies in 10 directions, equally.
#
# <details><summary>Solution</summary>
#
# Covariance term of the trace form: $256 \log(1 + 0.1 / (512 \cdot 0.0025)) = 256 \log 1.078 = 19.3$ nats. In 10
# directions each eigenvalue is $0.01$: $\frac12 \cdot 10 \log(1 + 0.01/0.0025) = 5 \log 5 = 8.0$ nats. The trace form
# takes the worst case, classes that are round.
#
# </details>
#
# **4.** For unit vectors, bound $\operatorname{tr}\Sigma_y$ by the mean *distance* within the class, and so connect the
# distance term of MI-UE's loss to Corollary 1.
#
# <details><summary>Solution</summary>
#
# For two independent draws, $\mathbb{E}\lVert Z'_1 - Z'_2\rVert^2 = 2\operatorname{tr}\Sigma_y$. Two unit vectors are
# at most 2 apart, so $\lVert\cdot\rVert^2 \le 2\lVert\cdot\rVert$, and
# $\operatorname{tr}\Sigma_y \le \mathbb{E}\lVert Z'_1 - Z'_2\rVert$. A distance term
# $D_j = \log(1 + \sum_k \lVert g_j - g_k\rVert/d)$ over the $n$ pictures of the class means that they are on average
# $\frac dn (e^{D_j} - 1)$ away from $g_j$, and by the triangle inequality at most twice that from each other. Take the
# $j$ with the least $D_j$, which is at most the mean $\bar D$:
# $\operatorname{tr}\Sigma_y \le \frac{2d}{n}(e^{\bar D} - 1)$. (The loss takes raw features. If they are at most
# $\Delta$ apart, $\operatorname{tr}\Sigma_y \le \frac\Delta2 \cdot \frac{2d}{n}(e^{\bar D} - 1)$, at their own scale.)
#
# </details>
#
# **5.** Replace unit length by standardised features (each coordinate of variance one over the whole set) in the cell
# of the table. What happens to the order of methods, and why?
#
# <details><summary>Solution</summary>
#
# ```python
# for name, images in data.items():
#     z = mi.features(victims[name][0], images).double()
#     z = (z - z.mean(0)) / z.std(0).clamp_min(1e-6)
#     print(name, theory.mi_bound(z, train.labels, resolution=0.1 * z.norm(dim=1).mean().item()))
# ```
#
# The covariance term was 5.7 nats for clean data, 5.4 for random, 3.2 for EM and 4.0 for MI-UE when we ran it: the same
# order here. But now only the *share* of variance that lies within classes counts, coordinate by coordinate. If
# training on poisoned data had moved the class means closer together as well, narrow classes might not have looked
# narrow. A number without its scale and its resolution means nothing.
#
# </details>
