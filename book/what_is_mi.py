# %% [markdown]
# # What mutual information is
#
# A network was trained on pictures that somebody had tampered with. How much do its features still tell about the
# clean pictures? Zhu, Miao, Dong and Gao ([2026](https://arxiv.org/abs/2603.03725)) answer with a number, the *mutual
# information* of clean and poisoned features, and explain with it why the tampering works. Before this book can test
# that explanation we have to know what such a number says, and what it does not. Afterwards you can
#
# - compute entropy and mutual information of a table by hand, in three ways that agree;
# - use the chain rule and the data processing inequality, and say what they do *not* promise;
# - explain why a picture and its poisoned copy share infinitely much information, and why every finite number that
#   somebody reports for such a pair has a resolution built in.
#
# You need probabilities, means and logarithms, and for one section determinants. No information theory is assumed.

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/what_is_mi.ipynb)

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
profile = "cpu"  # this chapter is the same in both profiles: it takes seconds, and needs no GPU
seed = 0

# %% [markdown]
# ## How much is there to be told?
#
# Somebody is about to tell you tomorrow's weather. How much will you learn? That depends on what you expected. An
# event of probability $p$ carries the *surprise* $-\log p$. What was certain ($p = 1$) surprises by 0; what is rare
# surprises a lot; and the surprises of independent events add, since their probabilities multiply. The *entropy* of a
# variable is its average surprise:
#
# $$H(X) = \mathbb{E}[-\log p(X)] = -\sum_x p(x) \log p(x).$$
#
# With the natural logarithm the unit is the *nat*, with base 2 the *bit*; a bit is $\log 2 \approx 0.693$ nats. This
# book counts in nats throughout, as the loss functions of PyTorch do.

# %%
import math

import torch
from matplotlib import pyplot as plt
from torch.nn import functional as F

from miue_lib import plots, theory

torch.set_default_dtype(torch.float64)


def entropy(p):
    """The average surprise of a table of probabilities, in nats. What never happens adds nothing."""
    p = p[p > 0]
    return -(p * p.log()).sum().item()


weather = {"sun": 1 / 2, "clouds": 1 / 4, "rain": 1 / 8, "snow": 1 / 8}
tables = {
    "a fair coin": torch.tensor([0.5, 0.5]),
    "a coin that shows heads nine times in ten": torch.tensor([0.9, 0.1]),
    "the weather below": torch.tensor(list(weather.values())),
    "a label, ten classes equally likely": torch.full((10,), 0.1),
}
for name, p in tables.items():
    print(f"{name:42s} {entropy(p):.3f} nats = {entropy(p) / math.log(2):.3f} bits")
assert abs(entropy(tables["the weather below"]) - 1.75 * math.log(2)) < 1e-12

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    left = 0.0
    for (name, p), colour in zip(weather.items(), plots.COLOURS, strict=False):
        axes.bar(left, -math.log(p), width=p, align="edge", color=colour, alpha=0.75, edgecolor="white")
        axes.annotate(name, (left + p / 2, -math.log(p)), xytext=(0, 3), textcoords="offset points", ha="center")
        left += p
    axes.axhline(entropy(tables["the weather below"]), color="black", linestyle="--", linewidth=1)
    axes.annotate("entropy", (0.01, 1.25), fontsize=9)
    axes.set(xlabel="probability (width of a bar)", ylabel="surprise (nats)", xlim=(0, 1), ylim=(0, 2.4))
    bits = axes.secondary_yaxis("right", functions=(lambda v: v / math.log(2), lambda v: v * math.log(2)))
    bits.set_ylabel("surprise (bits)")
    plt.close(figure)
plots.show(
    figure,
    "Four bars for the weather, as wide as each kind is probable and as high as it is surprising; a dashed line at "
    "their mean height, the entropy.",
)

# %% [markdown]
# Each bar is as wide as its event is probable, and as high as it is surprising. The area of all bars together is the
# entropy, and as the widths add to one, so is their mean height. In bits one can play it as a game: ask "sun?", then
# "clouds?", then "rain?", and you need 1, 2, 3 or 3 questions, 1.75 on average, which is the entropy. No way of asking
# does better.
#
# Two values are worth keeping. A variable with $k$ values has at most $\log k$ nats, when all are equally likely; and
# for ten classes $\log 10 \approx 2.303$ is the loss that a classifier shows before it has learnt anything: it
# is as surprised by each label as one can fairly be.
#
# **Remember:** entropy is average surprise, in nats; between 0 (certain) and $\log k$ ($k$ values, equally likely).

# %% [markdown]
# ## How much does one variable tell about another?
#
# Take a label $Y$ and something $X$ that can be seen of a picture, here its brightness. In forty pictures (made up),
# shoes are mostly dark and bags mostly bright. If you are told the brightness, how much have you learnt about the
# label? There are three ways to say it, each with a meaning of its own:
#
# $$I(X; Y) = \underbrace{H(X) + H(Y) - H(X, Y)}_{\text{what is counted twice}}
# = \underbrace{H(Y) - H(Y \mid X)}_{\text{how much surprise goes away}}
# = \underbrace{\sum_{x, y} p(x, y) \log \frac{p(x, y)}{p(x)\, p(y)}}_{\text{how far from independent}}.$$
#
# Here $H(Y \mid X) = \sum_x p(x)\, H(Y \mid X = x)$ is the surprise that is left on average, and the last form is the
# *Kullback–Leibler divergence* of the joint distribution from the product of its marginals. That they are equal
# follows from $p(x, y) = p(x)\, p(y \mid x)$ in two lines; let us rather compute all three.

# %%
labels, brightness = ["shoe", "shirt", "bag"], ["dark", "grey", "bright"]
joint = torch.tensor([[8, 2, 1], [3, 6, 4], [1, 4, 11]]) / 40  # p(y, x): a row a label, a column a brightness


def mutual_information(joint):
    """The divergence of a joint table from the product of its marginals, in nats."""
    product = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    seen = joint > 0
    return (joint[seen] * (joint[seen] / product[seen]).log()).sum().item()


p_y, p_x = joint.sum(1), joint.sum(0)
counted_twice = entropy(p_x) + entropy(p_y) - entropy(joint)
left_over = sum(p * entropy(column / p) for p, column in zip(p_x.tolist(), joint.T, strict=True))
gone = entropy(p_y) - left_over
print(f"H(X) + H(Y) − H(X, Y) = {counted_twice:.4f} nats")
print(f"H(Y) − H(Y | X)       = {gone:.4f} nats, of H(Y) = {entropy(p_y):.4f}")
print(f"divergence            = {mutual_information(joint):.4f} nats")
assert abs(counted_twice - gone) < 1e-12
assert abs(counted_twice - mutual_information(joint)) < 1e-12

# %% tags=["hide-input"]
product = p_y[:, None] * p_x[None, :]
ratio = (joint / product).log()
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 3, figsize=(8, 3.1))
    shown = {"joint p(y, x)": joint, "product p(y) p(x)": product, "log of joint / product (nats)": ratio}
    for axes, (title, values) in zip(panels, shown.items(), strict=True):
        signed = values is ratio
        low, high, colours = (-1.5, 1.5, "RdBu_r") if signed else (0, 0.3, "Blues")
        axes.imshow(values, vmin=low, vmax=high, cmap=colours)
        for row in range(3):
            for column in range(3):
                value = values[row, column].item()
                dark = abs(value) > (1.0 if signed else 0.2)
                text = f"{value:+.2f}".replace("-", "−") if signed else f"{value:.3f}"
                axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        axes.set(title=title, xlabel="brightness X")
        axes.set_xticks(range(3), brightness)
        axes.set_yticks(range(3) if values is joint else [], labels if values is joint else [])
        axes.title.set_fontsize(10)
        axes.grid(False)
    panels[0].set_ylabel("label Y")
    plt.close(figure)
plots.show(
    figure,
    "Three tables of label by brightness: the joint probabilities, the product of the marginals, and the logarithm of "
    "their ratio, which is positive on the diagonal and negative in the far corners.",
)

# %% [markdown]
# The middle table is what we should see if brightness told nothing. The right table compares: red cells happen more
# often than that, blue cells less. Its mean, weighted by the *joint* table, is the mutual information (*MI* in
# figures).
#
# It is never negative: by Jensen's inequality $-\sum p \log\frac{q}{p} \ge -\log \sum p\,\frac{q}{p} \ge 0$ for any
# two tables $p$ and $q$, with equality only if they are the same. So $I(X; Y) = 0$ exactly if $X$ and $Y$ are
# independent. It is symmetric. And it is at most $H(X)$ and at most $H(Y)$: nobody can tell you more than there is to
# be told.
#
# Isn't that what a correlation is for? See two pairs that a correlation knows nothing about.

# %% tags=["hide-input"]
grid = torch.arange(-3.0, 4)
turn = 2 * torch.pi * torch.arange(12) / 12
shapes = {"parabola": (grid, grid.square()), "ring": (turn.cos(), turn.sin())}


def table(x, y):
    """The joint table of two columns of numbers, every pair equally likely."""
    x, y = (torch.unique((1e6 * v).round(), return_inverse=True)[1] for v in (x, y))
    width = y.max().item() + 1
    return torch.bincount(x * width + y, minlength=(x.max().item() + 1) * width).reshape(-1, width) / len(x)


with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 2, figsize=(6.6, 3.2))
    for axes, (name, (x, y)) in zip(panels, shapes.items(), strict=True):
        correlation, mi = torch.corrcoef(torch.stack((x, y)))[0, 1].item(), mutual_information(table(x, y))
        axes.plot(x, y, "o")
        axes.set(xlabel="x", ylabel="y")
        axes.set_title(f"{name}: correlation {abs(correlation):.2f}, MI {mi:.2f} nats", fontsize=10)
        axes.margins(0.12)
        assert abs(correlation) < 1e-12
        assert mi > 1
    panels[1].set_aspect("equal")
    plt.close(figure)
plots.show(figure, "Seven points on a parabola and twelve on a ring: correlation zero, mutual information above 1 nat.")

# %% [markdown]
# On the parabola, $x$ settles $y$ completely, so the mutual information is all of $H(Y)$. On the ring $x$ leaves two
# values of $y$ at most. A correlation sees straight lines only.
#
# **Remember:** mutual information is the surprise about one variable that the other takes away. It is zero exactly if
# they are independent, and never more than either entropy.

# %% [markdown]
# ## What if there are two sources?
#
# Let $Z$ tell something about $X$, and then $Y$ something more. What they tell together is
#
# $$I(X; (Y, Z)) = I(X; Z) + I(X; Y \mid Z),$$
#
# the *chain rule*, where $I(X; Y \mid Z) = \sum_z p(z)\, I(X; Y \mid Z = z)$ is the mutual information within each
# $z$, averaged. To see it, take logarithms and means of $\frac{p(x \mid y, z)}{p(x)} = \frac{p(x \mid z)}{p(x)} \cdot
# \frac{p(x \mid y, z)}{p(x \mid z)}$. Does knowing $Z$ make $Y$ less useful, or more? Both can happen:


# %%
def conditional_information(joint):
    """I(X; Y | Z) of a table p(x, y, z): the mutual information within each z, averaged over z."""
    return sum(p * mutual_information(joint[:, :, z] / p) for z, p in enumerate(joint.sum((0, 1)).tolist()) if p > 0)


def report(name, joint):
    together = mutual_information(joint.flatten(1))
    from_z, from_y = mutual_information(joint.sum(1)), mutual_information(joint.sum(2))
    within = conditional_information(joint)
    print(name)
    print(
        f"    I(X; (Y, Z)) {together:.3f} = I(X; Z) {from_z:.3f} + I(X; Y | Z) {within:.3f}, while I(X; Y) {from_y:.3f}"
    )
    assert abs(together - from_z - within) < 1e-12


xor, copy = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
for a in (0, 1):
    copy[a, a, a] = 1 / 2
    for b in (0, 1):
        xor[a ^ b, a, b] = 1 / 4
report("Y and Z are copies of X, a fair bit:", copy)
report("X = Y xor Z, of two fair bits:", xor)

# %% tags=["hide-input"]
torch.manual_seed(seed)
random_tables = torch.distributions.Dirichlet(torch.full((8,), 0.4)).sample((600,)).reshape(-1, 2, 2, 2)
alone = torch.tensor([mutual_information(triple.sum(2)) for triple in random_tables])
within = torch.tensor([conditional_information(triple) for triple in random_tables])
from_z = torch.tensor([mutual_information(triple.sum(1)) for triple in random_tables])
together = torch.tensor([mutual_information(triple.flatten(1)) for triple in random_tables])
assert (together - from_z - within).abs().max() < 1e-12, "the chain rule"
assert (alone <= from_z + within + 1e-12).all(), "and the bound below"
assert (within > alone).any()
assert (within < alone).any()

with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(5.6, 3.9))
    axes.plot(alone, within, "o", markersize=3, alpha=0.4, label="random tables")
    axes.plot([0, 0.7], [0, 0.7], color="#555555", linewidth=1)
    axes.plot(0, math.log(2), "s", color=plots.COLOURS[1], label="xor")
    axes.plot(math.log(2), 0, "D", color=plots.COLOURS[2], label="copies")
    axes.set(xlabel="I(X; Y) (nats)", ylabel="I(X; Y | Z) (nats)", aspect="equal")
    axes.set(xlim=(-0.03, 0.73), ylim=(-0.03, 0.73))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    plt.close(figure)
plots.show(
    figure,
    "What Y tells about X, with and without knowing Z, for random tables of three bits: points on both sides of the "
    "diagonal, with the xor in one corner and copies in the opposite one.",
)

# %% [markdown]
# Below the diagonal $Y$ repeats what $Z$ has said. Above it they are worth more together than apart; for the xor,
# each alone tells nothing, and the two tell all. So "this feature carries no information" does not mean that it may
# be thrown away.
#
# Why this book needs the rule: let $Z = g(X)$ be the features of a clean picture, $Z' = g(X')$ those of its published
# copy, and $Y$ the label. As $I(Z; Z') \le I(Z; (Z', Y))$, the chain rule gives
#
# $$I(Z; Z') \le I(Z; Y) + I(Z; Z' \mid Y).$$
#
# What clean and poisoned features share is at most what clean features know of the label, plus what is shared *within*
# a class. A bound by the spread of features within each class, such as the paper's Theorem 5.1, is about the
# second term.
#
# **Remember:** information adds up by the chain rule, source after source, each given those before it.

# %% [markdown]
# ## Can processing add information?
#
# A label leads to a picture, the picture to features, the features to a prediction. Can the features know more about
# the label than the picture did? No. If $X \to Y \to Z$ is a chain, so that $Z$ is computed from $Y$ alone
# (randomly perhaps, but with dice that know nothing of $X$), then
#
# $$I(X; Z) \le I(X; Y).$$
#
# *Proof of this* data processing inequality. Expand $I(X; (Y, Z))$ by the chain rule in both orders:
#
# $$I(X; Y) + \underbrace{I(X; Z \mid Y)}_{=\,0} = I(X; (Y, Z)) = I(X; Z) +
# \underbrace{I(X; Y \mid Z)}_{\ge\,0}. \qquad \blacksquare$$
#
# See it on the simplest chain: a fair bit is passed on from hand to hand, and each hand flips it with probability
# $q$. After $k$ hands it is wrong with probability $q_k = \frac12 (1 - (1 - 2q)^k)$, and the first bit and the last
# share $\log 2 - H(q_k)$, where $H(q)$ is the entropy of a coin of probability $q$.

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(5.6, 3.3))
    for flip, marker in ((0.01, "o"), (0.05, "s"), (0.1, "D"), (0.3, "^")):
        hand = torch.tensor([[1 - flip, flip], [flip, 1 - flip]])
        passed_on, shared = torch.eye(2) / 2, []
        for k in range(21):
            wrong = (1 - (1 - 2 * flip) ** k) / 2
            shared.append(mutual_information(passed_on))
            assert abs(shared[-1] - (math.log(2) - entropy(torch.tensor([wrong, 1 - wrong])))) < 1e-12
            passed_on = passed_on @ hand
        assert torch.tensor(shared).diff().max() < 0
        axes.plot(shared, marker, linestyle="-", markersize=3.5, linewidth=1, label=f"q = {flip}")
    axes.set(xlabel="hands that have passed the bit on", ylabel="MI with the first bit (nats)", ylim=(0, 0.73))
    axes.set_xticks(range(0, 21, 5))
    axes.legend()
    plt.close(figure)
plots.show(
    figure,
    "Mutual information of a bit with its copy after 0 to 20 noisy hands, for four probabilities of flipping: it falls "
    "from log 2 towards zero, faster for noisier hands.",
)

# %% [markdown]
# What does that say about networks?
#
# - *Label → picture → features.* $I(g(X); Y) \le I(X; Y) \le H(Y)$. No layer creates knowledge of the label; it can
#   only keep it or lose it. (That a layer makes it *easier to use* is another matter, and the last section's.)
# - *Clean and poisoned features.* The inequality, applied on one side and then on the other, gives
#   $I(g(X); g(X')) \le I(X; g(X')) \le I(X; X')$, and deeper layers of $g$ share no more than earlier ones.
#   That is an upper bound, and the next sections show that the bound itself is usually infinite. The inequality
#   does not say that training lowers $I(g(X); g(X'))$, and it does not compare two different networks $g$.
# - *A chain that isn't one.* The noise is made with the labels at hand: $X' = X + \delta(X, Y)$. Then
#   $Y \to X \to X'$ need not be a chain, and the published picture may tell *more* about the label than the clean one.
#   That is no paradox; it is the trick. Exercise 2 works it out.
#
# One thing to keep apart: the inequality is about the true mutual information. An *estimate* of it, from samples, may
# well go up from layer to layer.
#
# **Remember:** processing either of two variables never adds to what they share. Draw the chain before you use it.

# %% [markdown]
# ## Does it matter in which units a feature is measured?
#
# If $f$ is invertible, then $X \to f(X) \to X$ are chains both ways, and data processing both ways gives
#
# $$I(f(X); k(Y)) = I(X; Y) \qquad \text{for any invertible } f \text{ and } k,$$
#
# centimetres or inches, logarithms or not, and also rotations and mirror images of vectors. In particular,
# *shrinking all features to a hundredth of their size changes nothing*. What changes is what a ruler of fixed
# resolution makes of them. We draw 20,000 Gaussian pairs, count them in a table of boxes, and do it again with $x$
# shrunk and $y$ bent. The boxes are of two kinds: of fixed width 0.5, or *deciles*, ten rows and ten columns with a
# tenth of the points each.

# %%
torch.manual_seed(seed)
n, rho = 20_000, 0.8
x = torch.randn(n)
y = rho * x + math.sqrt(1 - rho**2) * torch.randn(n)
versions = {"x, y": (x, y), "0.01 x, y": (0.01 * x, y), "0.01 x, exp y": (0.01 * x, y.exp())}


def deciles(values):
    return 10 * values.argsort().argsort() // len(values)


def boxes(values, width=0.5):
    return (values / width).floor()


by_deciles, by_boxes = {}, {}
for name, (u, v) in versions.items():
    by_deciles[name] = mutual_information(table(deciles(u), deciles(v)))
    by_boxes[name] = mutual_information(table(boxes(u), boxes(v)))
    print(f"{name:14s} in deciles {by_deciles[name]:.4f} nats, in boxes of width 0.5 {by_boxes[name]:.4f} nats")
assert len(set(by_deciles.values())) == 1, "not one point has moved to another decile"
assert by_boxes["0.01 x, y"] < 0.8 * by_boxes["x, y"]

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.5))
    inner = torch.arange(1, 10) / 10
    for axes, name in zip(panels, ("x, y", "0.01 x, exp y"), strict=True):
        u, v = versions[name]
        axes.plot(u[:1500], v[:1500], "o", markersize=2, alpha=0.4)
        axes.vlines(u.quantile(inner), v.min(), v.max(), color=plots.COLOURS[1], linewidth=0.7)
        axes.hlines(v.quantile(inner), u.min(), u.max(), color=plots.COLOURS[1], linewidth=0.7)
        axes.set(xlabel=name.split(", ")[0], ylabel=name.split(", ")[1])
        axes.set_title(f"{by_deciles[name]:.4f} nats in deciles", fontsize=10)
        axes.grid(False)
    panels[1].set_ylim(0, 8)
    plt.close(figure)
plots.show(
    figure,
    "A cloud of points before and after its axes are shrunk and bent, with lines at the deciles: the lines move with "
    "the points, so that every point keeps its box and the mutual information its value.",
)

# %% [markdown]
# The lines move with the points, each point stays in its box, and the number stays the same to the last bit. (It is
# below the true value, which a later section gives, since ten boxes a side see only so much: data processing again.)
# The fixed boxes tell another story. After shrinking, $x$ falls into two of them, its sign is all that is left, and
# the measured information drops.
#
# So beware of the sentence "the features collapse, hence they carry no information". Collapse by itself proves nothing
# about mutual information. It matters only together with something that does not shrink along: a box, a bandwidth,
# noise. Which of these, and how large, has to be said.
#
# **Remember:** invertible maps of either side leave mutual information alone. Estimates with a fixed resolution feel
# them.

# %% [markdown]
# ## What is the entropy of a number with infinitely many digits?
#
# Infinite: each further digit is news. If $X$ has a density $p$, and $X_\Delta$ is $X$ rounded to multiples of
# $\Delta$, then a cell has probability about $p(x)\Delta$ and surprise about $-\log p(x) - \log \Delta$. So
#
# $$H(X_\Delta) \approx h(X) - \log \Delta, \qquad h(X) = -\int p(x) \log p(x)\, dx.$$
#
# The part that depends on $X$, not on the ruler, is the *differential entropy* $h$. It is not an amount of anything:
# it can be negative, it changes with the units, $h(aX) = h(X) + \log|a|$, and $h = 0$ means no more than "as spread
# out as a uniform variable of width 1". But in
#
# $$I(X; Y) = h(X) + h(Y) - h(X, Y)$$
#
# the rulers cancel: $-\log\Delta$ twice, and $-2\log\Delta$ for the pair. What is left is a limit that does not depend
# on them. Here is a standard Gaussian pair with $\rho = 0.9$, rounded more and more finely, without any sampling.


# %%
def rounded_gaussians(delta, rho, reach=8.0):
    """The joint table of a standard Gaussian pair, each of the two rounded to multiples of delta."""
    half = math.ceil(reach / delta)
    edges = delta * (torch.arange(-half, half + 2) - 0.5)
    fine = math.ceil(delta / 0.02)  # points per cell in the integral over x
    x = (edges[:-1, None] + delta * (torch.arange(fine) + 0.5) / fine).flatten()
    weight = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi) * delta / fine
    below = torch.special.ndtr((edges - rho * x[:, None]) / math.sqrt(1 - rho**2))  # P(Y < edge | x)
    return (weight[:, None] * below.diff(dim=1)).reshape(len(edges) - 1, fine, -1).sum(1)


rho, steps = 0.9, [4.0, 2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.12, 0.08, 0.05]
entropies, informations = [], []
for delta in steps:
    cells = rounded_gaussians(delta, rho)
    assert abs(cells.sum() - 1) < 1e-4
    entropies.append(entropy(cells.sum(0)))
    informations.append(mutual_information(cells))
h = theory.gaussian_entropy(1.0).item()
limit = theory.gaussian_mi(rho).item()
print(f"h of a standard Gaussian {h:.4f}, of one in units a hundred times larger {theory.gaussian_entropy(1e-4):.4f}")
without_ruler = entropies[-1] + math.log(0.05)
print(f"rounded to 0.05: H + log Δ = {without_ruler:.4f}; MI {informations[-1]:.4f}, limit {limit:.4f}")
assert abs(without_ruler - h) < 1e-3
assert abs(informations[-1] - limit) < 0.05**2
assert max(informations) < limit, "rounding is processing"

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(5.8, 3.5))
    axes.plot(steps, entropies, "o", markersize=4, label="entropy of X, rounded")
    axes.plot(steps, [h - math.log(delta) for delta in steps], color=plots.COLOURS[0], linewidth=1, label="h − log Δ")
    axes.plot(steps, informations, "s", markersize=4, color=plots.COLOURS[1], label="MI of X and Y, both rounded")
    axes.axhline(limit, color=plots.COLOURS[1], linewidth=1, label="−½ log(1 − ρ²)")
    axes.set(xscale="log", xlabel="rounded to multiples of Δ", ylabel="nats", ylim=(-0.2, 4.8))
    axes.set_xticks([4, 2, 1, 0.5, 0.25, 0.1, 0.05], ["4", "2", "1", "0.5", "0.25", "0.1", "0.05"])
    axes.set_xticks([], minor=True)
    axes.invert_xaxis()
    axes.legend(loc="upper left", fontsize=9)
    plt.close(figure)
plots.show(
    figure,
    "Against ever finer rounding, the entropy of a rounded Gaussian climbs along a straight line without end, while "
    "the mutual information of a pair levels off.",
)

# %% [markdown]
# The entropy climbs for ever. The mutual information levels off, and once $\Delta$ is well below the width of the
# *narrowest* feature of the joint distribution (here $\sqrt{1 - \rho^2} \approx 0.44$) finer rounding adds nothing.
# That is why one may speak of "the" mutual information of two continuous variables without naming a ruler, as long as
# the limit is finite.
#
# **Remember:** differential entropy may be negative and depends on units; only differences of it mean something, and
# mutual information is such a difference.

# %% [markdown]
# ## What is it for Gaussians?
#
# For Gaussians nearly everything can be written down. With variance $\sigma^2$, $-\log p(x) = \frac12
# \log(2\pi\sigma^2) + x^2 / 2\sigma^2$, whose mean is $h = \frac12 \log(2\pi e\, \sigma^2)$; in $d$ dimensions, by a
# change to independent coordinates, $h = \frac12 \log\det(2\pi e\, \Sigma)$. The three entropies of a pair $(X, Y)$
# give, as the $2\pi e$ cancel,
#
# $$I(X; Y) = \tfrac12 \log \frac{\det\Sigma_x \det\Sigma_y}{\det\Sigma}, \qquad
# \text{for two numbers with correlation } \rho: \quad I(X; Y) = -\tfrac12 \log(1 - \rho^2).$$
#
# If $Y = X + N$ is a signal with independent noise, $\rho^2 = \mathrm{snr} / (1 + \mathrm{snr})$ with the
# signal-to-noise ratio of variances, and hence $I(X; X + N) = \frac12 \log(1 + \mathrm{snr})$. In plain PyTorch, beside
# the library, which holds such formulas in `miue_lib.theory`, and beside samples:

# %%
torch.manual_seed(seed)
rho = 0.9
by_hand = -0.5 * math.log(1 - rho**2)
assert abs(by_hand - theory.gaussian_mi(rho)) < 1e-12

x = torch.randn(1_000_000)
y = rho * x + math.sqrt(1 - rho**2) * torch.randn(1_000_000)
log_ratio = by_hand + (x**2 + y**2) / 2 - (x**2 - 2 * rho * x * y + y**2) / (2 * (1 - rho**2))  # joint / product
error = log_ratio.std() / math.sqrt(len(x))
print(f"formula {by_hand:.4f} nats, mean log ratio over samples {log_ratio.mean():.4f} ± {error:.4f} (standard error)")
assert abs(log_ratio.mean() - by_hand) < 5 * error

factor = torch.randn(5, 5)
covariance = factor @ factor.T  # of a pair: X the first two coordinates, Y the other three
det = torch.linalg.det
vectors_by_hand = 0.5 * (det(covariance[:2, :2]) * det(covariance[2:, 2:]) / det(covariance)).log()
vectors = theory.gaussian_vector_mi(covariance, 2)
print(f"vectors: by hand {vectors_by_hand:.4f} nats, library {vectors:.4f} nats")
assert abs(vectors_by_hand - vectors) < 1e-9

snr = torch.tensor([0.1, 1.0, 10.0, 100.0])
assert torch.allclose(theory.gaussian_channel_mi(snr), theory.gaussian_mi((snr / (1 + snr)).sqrt()))
print(
    "channel:", ", ".join(f"snr {s:g} {v:.3f} nats" for s, v in zip(snr, theory.gaussian_channel_mi(snr), strict=True))
)

# %% tags=["hide-input"]
torch.manual_seed(seed)
first, second = torch.randn(2, 700)
circle = torch.linspace(0, 2 * torch.pi, 200)
all_rho = 1 - torch.logspace(0, -4, 200)
frames = {}
for rho in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999):
    value, rest = theory.gaussian_mi(rho).item(), math.sqrt(1 - rho**2)
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.7))
        left.plot(first, rho * first + rest * second, "o", markersize=2.5, alpha=0.4)
        for mass in (0.5, 0.95):
            radius = math.sqrt(-2 * math.log(1 - mass))
            left.plot(
                radius * circle.cos(),
                radius * (rho * circle.cos() + rest * circle.sin()),
                color=plots.COLOURS[1],
                linewidth=1.2,
            )
        left.set(xlim=(-3.6, 3.6), ylim=(-3.6, 3.6), aspect="equal", xlabel="x", ylabel="y")
        left.set_title(f"ρ = {rho:g}", fontsize=10)
        right.plot(all_rho, theory.gaussian_mi(all_rho), linewidth=1.5)
        right.plot(rho, value, "o", color=plots.COLOURS[1], markersize=8)
        right.set(xlabel="correlation ρ", ylabel="mutual information (nats)", xlim=(-0.03, 1.03), ylim=(-0.1, 3.6))
        right.set_title(f"{value:.3f} nats", fontsize=10)
        plt.close(figure)
    frames[f"A Gaussian pair with correlation {rho:g}, and its mutual information, {value:.3f} nats"] = figure
plots.slider(frames, label="correlation")

# %% [markdown]
# The ellipses hold one half and 95 in a hundred of all points. Up to $\rho \approx 0.4$ hardly anything happens, since
# $I \approx \rho^2/2$. Then the curve steepens, and towards 1 it has no end: each time the cloud becomes ten times
# thinner, another $\log 10 \approx 2.3$ nats are added. Two consequences for estimation: weak dependence makes very
# little information, which is easily lost in sampling noise; and near $|\rho| = 1$ a small error in $\rho$ is a large
# error in information.
#
# Why does everyone compute Gaussians, when features are not Gaussian? Because of one fact: *among all densities with a
# given covariance $\Sigma$, the Gaussian has the largest entropy.* Proof: let $p$ be any of them and $\varphi$ the
# Gaussian with the same mean and covariance. Then
#
# $$0 \le \int p \log \frac{p}{\varphi} = -h(p) - \int p \log \varphi = -h(p) - \int \varphi \log \varphi
# = h(\varphi) - h(p),$$
#
# where $p$ may be exchanged for $\varphi$ in the middle because $\log\varphi$ is a quadratic, whose mean depends on
# mean and covariance only. $\blacksquare$ So a covariance alone bounds an entropy *from above*, whatever the
# distribution. That is how a bound on mutual information can be had from the spread of features without assuming
# them Gaussian, provided the remaining entropy $h(Z \mid Z')$ is bounded from below, by noise for example. The chapter
# [The Gaussian-covariance theorem](covariance_theorem.ipynb) does that.
#
# It is *not* so that the Gaussian formula bounds mutual information from above. Look:

# %%
uniform, laplace = math.log(math.sqrt(12)), 1 + math.log(math.sqrt(2))
print(f"entropy at variance 1: uniform {uniform:.3f}, Laplace {laplace:.3f}, Gaussian {h:.3f} nats")
assert max(uniform, laplace) < h

epsilon = 0.1  # X uniform on (0, 1), plus independent noise uniform on (−ε, ε)
rho = 1 / math.sqrt(1 + 4 * epsilon**2)
truth, gaussian = theory.uniform_channel_mi(epsilon).item(), theory.gaussian_mi(rho).item()
print(f"X and X + noise, both uniform: {truth:.4f} nats; the Gaussian formula at their correlation says {gaussian:.4f}")
assert truth > gaussian

# %% [markdown]
# Nor from below: a fair coin and its exact copy have correlation 1, and share $\log 2$, not infinity.
#
# **Remember:** $-\frac12\log(1 - \rho^2)$ for Gaussians, and for Gaussians only. The Gaussian has the largest entropy
# at a given covariance.

# %% [markdown]
# ## What if one variable is computed from the other?
#
# This is the case that the book is about: a published picture is a function of the clean one, $X' = X + \delta(X)$.
# Knowing $X$, nothing about $X'$ is left to be told, however finely it is measured. Hence, rounding $X'$ to multiples
# of $\Delta$, which can only lose information,
#
# $$I(X; X') \ge I(X; X'_\Delta) = H(X'_\Delta) - \underbrace{H(X'_\Delta \mid X)}_{=\,0} = H(X'_\Delta),$$
#
# and if $X'$ has a density, the right-hand side goes to infinity as $\Delta$ goes to zero, as we saw. *A continuous
# variable and a function of it that has a density share infinitely much information*, however wild the function. To get
# a finite number, somebody must take away the endless digits. (If the noise depends on the label too, at most $H(Y)$
# nats are left given $X$: the infinity stays, and the noisy value below changes by at most $H(Y)$.) Say we see $X'$
# through noise: $I(X; X' + \sigma N)$ with a standard Gaussian $N$ independent of the rest. Given $X$, only the noise
# is left, so this is $h(X' + \sigma N) - h(\sigma N)$: it is finite, and we can compute it.


# %%
def information_through_noise(values, weights, sigma):
    """I(X; f(X) + σN) in nats, where f(X) takes these values with these weights, fine enough to pass for a density."""
    y = torch.arange(values.min() - 7 * sigma, values.max() + 7 * sigma, sigma / 6)
    density = torch.exp(-(((y[:, None] - values) / sigma) ** 2) / 2) @ weights / (sigma * math.sqrt(2 * math.pi))
    return -torch.special.xlogy(density, density).sum().item() * sigma / 6 - theory.gaussian_entropy(sigma**2).item()


# Checked where the answer is known, on a Gaussian signal:
signal = torch.linspace(-8, 8, 2001)
weights = torch.softmax(-signal.square() / 2, 0)
for sigma in (2.0, 0.5, 0.05):
    assert abs(information_through_noise(signal, weights, sigma) - theory.gaussian_channel_mi(sigma**-2)) < 1e-6


def published(x):
    return x + 0.15 * torch.sin(4 * torch.pi * x)


x = (torch.arange(3000) + 0.5) / 3000  # X uniform on (0, 1)
sigmas = torch.logspace(0, -2.5, 41)
through_noise = [information_through_noise(published(x), torch.full_like(x, 1 / 3000), s) for s in sigmas.tolist()]
gains = [through_noise[k + 16] - through_noise[k] for k in (0, 12, 24)]
print(f"σ = 1: {through_noise[0]:.3f} nats; σ = {sigmas[-1]:.4f}: {through_noise[-1]:.3f} nats")
print("ten times finer adds", ", ".join(f"{gain:.3f}" for gain in gains), f"nats, towards log 10 = {math.log(10):.3f}")
assert gains[0] < gains[1] < gains[2] < math.log(10)
assert gains[2] > 0.85 * math.log(10)

# %% tags=["hide-input"]
torch.manual_seed(seed)
points, noise = torch.rand(900), torch.randn(900)
frames = {}
for sigma, value in list(zip(sigmas.tolist(), through_noise, strict=True))[::4]:
    with plt.rc_context(plots.STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.5))
        left.plot(points, published(points) + sigma * noise, "o", markersize=2.5, alpha=0.4)
        left.plot(x, published(x), color="black", linewidth=0.8)
        left.set(xlabel="x", ylabel="x′ + σ · noise", xlim=(0, 1), ylim=(-0.6, 1.6))
        left.set_title(f"σ = {sigma:.2g}", fontsize=10)
        right.plot(sigmas, through_noise, linewidth=1.5)
        right.plot(sigma, value, "o", color=plots.COLOURS[1], markersize=8)
        right.set(xscale="log", xlabel="resolution σ", ylabel="I(X; X′ + σN) (nats)", ylim=(-0.2, 4.2))
        right.invert_xaxis()
        right.set_title(f"{value:.3f} nats", fontsize=10)
        plt.close(figure)
    frames[f"A deterministic map seen through noise of σ = {sigma:.2g}: {value:.3f} nats"] = figure
plots.slider(frames, label="finer resolution")

# %% [markdown]
# The map never changes; the number runs from nearly nothing to as much as you like, by $\log\frac1\sigma$. Noise is one
# way to set a resolution. Bins are another, and they bring in a third: the number $n$ of samples. Below, both $X$ and
# $X'$ are cut into $B$ bins of equal width, and the mutual information of the table of counts is computed. The grey
# line is a pair of *independent* variables.


# %%
def counted_information(a, b):
    """Mutual information of the empirical distribution of pairs of whole numbers, in nats."""
    counts = [torch.unique(v, return_counts=True)[1] / len(a) for v in (a, b, a * (b.max() + 1) + b)]
    return entropy(counts[0]) + entropy(counts[1]) - entropy(counts[2])


torch.manual_seed(seed)
bins = [2**k for k in range(1, 26)]
binned = {}
for n in (300, 3_000, 30_000):
    a = torch.rand(n)
    binned[f"n = {n:,}"] = [counted_information((B * a).long(), (B * published(a)).long()) for B in bins]
    assert abs(binned[f"n = {n:,}"][-1] - math.log(n)) < 0.01
a, b = torch.rand(2, 3_000)
binned["independent, n = 3,000"] = [counted_information((B * a).long(), (B * b).long()) for B in bins]
for B in (8, 128, 1024):
    of, noise = (binned[name][bins.index(B)] for name in ("n = 3,000", "independent, n = 3,000"))
    print(f"n = 3,000 in {B:4d} bins: {of:.2f} nats from the map, {noise:.2f} nats from independent variables")
assert abs(noise - of) < 0.5

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(6.2, 3.8))
    for (name, values), colour in zip(binned.items(), (*plots.COLOURS[:3], "#999999"), strict=True):
        axes.plot(bins, values, "o-", markersize=3, linewidth=1.3, color=colour, label=name)
        axes.axhline(math.log(int(name.split("= ")[1].replace(",", ""))), color=colour, linestyle=":", linewidth=1)
    axes.plot(bins[:15], [math.log(B) for B in bins[:15]], color="black", linestyle="--", linewidth=1, label="log B")
    axes.set(xscale="log", xlabel="bins a side, B", ylabel="MI of the table of counts (nats)", ylim=(-0.3, 11.2))
    axes.legend(fontsize=9)
    plt.close(figure)
plots.show(
    figure,
    "Mutual information of binned samples against the number of bins: it climbs in parallel with log B until it "
    "reaches log n, at dotted lines. Independent samples reach log n as well.",
)

# %% [markdown]
# First the numbers climb with $\log B$: the resolution speaks. Then they stop at $\log n$, the dotted lines: each
# sample sits alone in its bin, and the table only counts samples. At that end independent variables show as much
# information as dependent ones, so the height means nothing any more; the numbers above the figure say how
# early that begins. Estimators differ in how they stay away from that end; the next chapter measures how well.
#
# Now read "the mutual information of clean and poisoned features", $I(g(X); g(X'))$, with this in mind.
#
# - $I(X; X')$, and $I(X; g(X'))$ for a feature with a density, are infinite. (A stored picture has 256 levels a pixel,
#   so strictly at most $d \log 256$ nats for $d$ pixels, thousands; that counts the digits of pixels and helps nobody.)
# - $I(g(X); g(X'))$ need not be: a network forgets, so $g(X')$ is not a function of $g(X)$, and there *may* be a finite
#   true value. But a data set cannot show it by itself. In a finite set hardly two feature vectors are equal; each
#   $g(x)$ points to its own $g(x')$, and taken at its word the table of $n$ such pairs has $\log n$ nats: 10.8 for
#   50,000 pictures, whatever the noise was.
# - So a number reported for it always speaks about a resolution as well: bins, a bandwidth, added noise, the distance
#   to neighbours, the smoothness of a fitted network, and always the number of samples. Compare two numbers only if
#   these are the same, and the features on the same scale.
#
# **Remember:** a function of $X$ whose values have a density shares infinitely much with $X$. Ask of every finite
# number: at which resolution?

# %% [markdown]
# ## Does much information mean high accuracy?
#
# If features $Z$ hold $I(Z; Y)$ nats about a label with $K$ classes, how often is the best possible classifier wrong?
# There are bounds on both sides of its error $e$. What is left to be told is $H(Y \mid Z) = H(Y) - I(Z; Y)$, and
#
# $$H(Y \mid Z) \le H(e) + e \log(K - 1), \qquad e \le 1 - \exp(-H(Y \mid Z)), \qquad
# e \le \frac{H(Y \mid Z)}{2 \log 2},$$
#
# with $H(e)$ the entropy of a coin of probability $e$. The first is *Fano's inequality* (Fano 1961): much uncertainty
# forces errors. To tell $Y$ to somebody who has the guess, say first whether it is wrong, which takes $H(e)$ at most,
# and only if it is, which of the $K - 1$ others is right. The other two say that little uncertainty keeps errors rare.
# The second follows from Jensen's inequality, as no class is less surprising than the likeliest one; the third is by
# Hellman and Raviv (1970). For ten equally likely classes, with random tables $p(y, z)$:

# %%
torch.manual_seed(seed)
K = 10


def favourites(error):
    """p(y, z) where z names a class, and is wrong with this probability, all other classes then equally likely."""
    return torch.full((K, K), error / (K - 1)).fill_diagonal_(1 - error) / K


def blocks(size):
    """p(y, z) where z tells in which block of so many classes y is."""
    return torch.kron(torch.eye(K // size), torch.ones(size, 1)) / K


def information_and_accuracy(tables):
    return torch.tensor([[mutual_information(joint), joint.max(0).values.sum()] for joint in tables]).T


def least_information(error):
    """Fano: what Z must at least tell about Y, uniform on K classes, if the best classifier errs so often."""
    coin = -torch.special.xlogy(error, error) - torch.special.xlogy(1 - error, 1 - error)
    return math.log(K) - coin - error * math.log(K - 1)


errors = torch.linspace(0, 1 - 1 / K, 10_001)
as_much = errors[(least_information(errors) - math.log(2)).abs().argmin()].item()
kinds = {
    "random tables": [
        conditional / K
        for concentration in torch.logspace(-2.2, 1, 60)
        for conditional in torch.distributions.Dirichlet(concentration.expand(12)).sample((10, K))
    ],
    "z names a class": [favourites(error) for error in (0.1, 0.2, 0.3, as_much, 0.55, 0.7, 0.8)],
    "z names a block": [blocks(size) for size in (1, 2, 5, 10)],
}
results = {name: information_and_accuracy(tables) for name, tables in kinds.items()}
information, accuracy = torch.cat(list(results.values()), 1)
unknown = math.log(K) - information  # H(Y | Z)
assert (information >= least_information(1 - accuracy) - 1e-12).all()
assert (1 - accuracy <= 1 - torch.exp(-unknown) + 1e-12).all()
assert (1 - accuracy <= unknown / (2 * math.log(2)) + 1e-12).all()
for name, k in (("z names a block", 2), ("z names a class", 3)):
    print(f"{name}: {results[name][0, k]:.3f} nats, accuracy {results[name][1, k]:.2f}")

# %% tags=["hide-input"]
with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(7.6, 3.7))
    axes.plot(least_information(errors), 1 - errors, color=plots.COLOURS[1], label="at most (Fano)")
    told = torch.linspace(0, math.log(K), 300)
    floor = torch.maximum(torch.exp(told - math.log(K)), 1 - (math.log(K) - told) / (2 * math.log(2)))
    axes.plot(told, floor, color=plots.COLOURS[2], label="at least (Jensen;\nHellman and Raviv)")
    for (name, points), style, c in zip(results.items(), ("o", "^", "s"), (0, 1, 2), strict=True):
        size, alpha = (2.5, 0.4) if c == 0 else (6, 1)
        axes.plot(*points, style, markersize=size, alpha=alpha, color=plots.COLOURS[c], label=name)
    axes.set(xlabel="I(Z; Y) (nats)", ylabel="accuracy of the best classifier", xlim=(0, 2.35), ylim=(0, 1.03))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    plt.close(figure)
plots.show(
    figure,
    "Accuracy of the best classifier against mutual information for ten classes: random tables lie between an upper "
    "curve, by Fano, and a lower one; features that name one class lie on the upper, those that name a block on the "
    "lower.",
)

# %% [markdown]
# The band is wide, and both of its edges are touched. Of two features with the same $\log 2$ nats, one, which names the
# half of the classes that $y$ is in, allows an accuracy of 0.20; the other, which names a class and is often wrong,
# 0.58. Little information about *the label* does force a low accuracy, and that is the direction in which a theory of
# unlearnable data wants to argue. Note what the band is about, though: $I(Z; Y)$, the label and the features; classes
# that are equally likely; and the *best* classifier on these features. Change any of the three:
#
# **Much information, low accuracy.** Two rings, one inside the other: the label is a function of the radius, so
# $I(Z; Y) = \log 2$, all there is. A linear head is lost.

# %% tags=["hide-input"]
torch.manual_seed(seed)
angle = 2 * torch.pi * torch.rand(2000)
y = torch.arange(2000) % 2
z = (1.0 + y)[:, None] * torch.stack((angle.cos(), angle.sin()), 1)


def linear_accuracy(z, y):
    """The training accuracy of a logistic regression."""
    weights = torch.zeros(z.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        logits = z @ weights[1:] + weights[0]
        loss = F.binary_cross_entropy_with_logits(logits, y.double()) + 1e-4 * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (((z @ weights[1:] + weights[0]) > 0) == (y == 1)).double().mean().item()


on_z = linear_accuracy(z, y)
on_radius = linear_accuracy(torch.cat((z, z.square().sum(1, keepdim=True)), 1), y)
best_line = max(((z[:, 0] > cut) == (y == 1)).double().mean().item() for cut in torch.linspace(-2, 2, 401).tolist())
print(
    f"logistic regression on z {on_z:.3f}, the best line {best_line:.3f}, with |z|² as a third feature {on_radius:.3f}"
)
assert on_z < 0.6
assert abs(best_line - 2 / 3) < 5 * math.sqrt(2 / 9 / 2000)
assert on_radius == 1

with plt.rc_context(plots.STYLE):
    figure, axes = plt.subplots(figsize=(4.4, 4.0))
    for c, marker in ((0, "o"), (1, "s")):
        axes.plot(*z[y == c][:300].T, marker, markersize=3, alpha=0.6, label=f"class {c + 1}")
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.annotate("a best line", (1, -2.45), xytext=(4, 0), textcoords="offset points", fontsize=9)
    axes.set(xlabel="feature 1", ylabel="feature 2", xlim=(-2.7, 2.7), ylim=(-2.7, 2.7), aspect="equal")
    axes.legend(loc="upper right", fontsize=9, frameon=True)
    plt.close(figure)
plots.show(
    figure, "Two classes on two concentric rings. A vertical line through the edge of the inner ring is the best line."
)

# %% [markdown]
# No line gets more than two thirds right: beyond the inner ring it catches a third of the outer one. One more feature,
# $|z|^2$, adds no information at all, and the head is perfect. Information does not count how hard it is to use. So
# when a *victim*, a network trained on published pictures, fails on clean ones, only its head may be at fault: its
# features may still know the label. To find out, one has to fit another head.
#
# **Little information, high accuracy.** If 99 of 100 pictures show a shirt, $H(Y) = 0.056$ nats is all there is to
# know. A classifier that says "shirt" without looking is right in 99 cases, at an information of zero.
#
# **Information about something else.** $I(g(X); g(X'))$ has no label in it. If clean and poisoned features both follow
# the brightness of the picture, they share a lot, and neither need know a class. A small value is evidence of
# something, not a measurement of accuracy. Whether it goes with accuracy over many methods is an empirical question;
# it is the one that this book asks.
#
# **Remember:** information bounds the accuracy of the *best* classifier, loosely. What a given head makes of it is
# another matter.

# %% [markdown]
# ## What to remember
#
# - Mutual information is the surprise about one variable that another takes away; zero exactly for independence.
# - Chain rule: what two sources tell adds up, the second given the first. Data processing: nothing is gained on the
#   way.
# - Invertible maps of either side change nothing. Shrunken features carry what they carried.
# - For Gaussians $-\frac12 \log(1 - \rho^2)$; and the Gaussian has the largest entropy at a given covariance.
# - A function of $X$ whose values have a density shares infinitely much with $X$. A finite number has a resolution:
#   ask for it.
# - High information is not high accuracy, nor the reverse.
#
# ## Exercises
#
# **1.** Ten classes are equally likely. A feature tells, without error, whether the class is one of the first five,
# and nothing else. How much information is that, what accuracy is possible, and what do the bounds say?
#
# <details><summary>Solution</summary>
#
# $H(Y) = \log 10$ and $H(Y \mid Z) = \log 5$, so $I(Z; Y) = \log 2 \approx 0.693$ nats, one bit. Five classes remain
# equally likely: the best accuracy is $1/5$. Jensen's bound gives at least $e^{-\log 5} = 1/5$, so it is reached. Fano
# allows an error as low as 0.42, which solves $\log 5 = H(e) + e \log 9$. So at the same information an accuracy of
# 0.58 is possible: with a feature that names one class for each picture, right with probability 0.58, while the nine
# others stay equally likely.
#
# </details>
#
# **2.** Let the "picture" $X$ be a fair bit and the label $Y$ another, independent one. The owner publishes
# $X' = X + 2Y$. Compute $I(X; Y)$, $I(X'; Y)$ and $I(X; X')$. Why does this not contradict data processing? What does a
# network learn from $(X', Y)$ that helps it on clean $X$?
#
# <details><summary>Solution</summary>
#
# $I(X; Y) = 0$ and $I(X'; Y) = \log 2$, as $Y$ can be read off $X'$. The chain would have to be $Y \to X \to X'$, but
# $X'$ was made from $X$ *and* $Y$. Moreover $I(X; X') = H(X) = \log 2$: the published picture still tells everything
# about the clean one. Nothing is hidden; something more convenient is added. A network learns "large means class 1",
# which is worthless on clean pictures. (Here nothing could have been learnt anyway, since $I(X; Y) = 0$. Replace $X$
# by a noisy copy of the label, and the network may learn the noisy rule, or the perfect one that the noise offers.)
#
# </details>
#
# **3.** A pixel is $X \sim U(0, 1)$, and the budget is $|X' - X| \le \varepsilon$. Show that *no* noise, random or not,
# brings $I(X; X')$ below $\log \frac{1}{2\varepsilon}$, and find noise that reaches it. What are the numbers for
# $\varepsilon = 8/255$, and for uniform random noise? What follows for unlearnable noise?
#
# <details><summary>Solution</summary>
#
# Given $X' = x'$, the clean pixel lies in $[x' - \varepsilon, x' + \varepsilon]$, and a variable on an interval of
# width $2\varepsilon$ has at most the entropy of the uniform one, $\log 2\varepsilon$. So $I(X; X') = h(X) - h(X \mid
# X') \ge 0 - \log 2\varepsilon$. If $1/(2\varepsilon)$ is a whole number, rounding $X$ to the middle of its cell of
# width $2\varepsilon$ stays within the budget and reaches the bound. For $8/255$ the bound is $\log(255/16) = 2.769$
# nats, and independent uniform noise leaves `theory.uniform_channel_mi(8 / 255)` $= 2.800$. For a picture of $d$ pixels
# the same argument gives $I(X; X') \ge h(X) + d \log \frac{1}{2\varepsilon}$. For independent uniform pixels that is
# thousands of nats. (Real pictures have a much smaller $h(X)$, and the bound may say nothing about them.) So for such
# pixels a small budget cannot erase the picture, and random noise is already about as destructive as the budget allows.
# If unlearnable noise lowers a mutual information by much, look first at one that a *network* decides on: that of its
# features.
#
# </details>
#
# **4.** Let $X \sim N(0, 1)$, $S = \pm 1$ an independent fair sign, and $Y = S X$. Both are standard Gaussian. What is
# their correlation, what is their mutual information, and why does $-\frac12 \log(1 - \rho^2)$ not apply?
#
# <details><summary>Solution</summary>
#
# $\mathbb{E}[XY] = \mathbb{E}[S]\, \mathbb{E}[X^2] = 0$. But $|Y| = |X|$, so $I(X; Y) \ge I(|X|; |Y|) = \infty$ by data
# processing. The formula needs the *pair* to be Gaussian, not each of the two; this pair lives on two crossing lines
# and has no joint density at all. Any rounding, or noise, makes the number finite, and resolution sets its size.
#
# </details>
#
# **5.** Features $Z \sim N(0, 1)$ are shrunk to $aZ$ and seen through noise of fixed size, $aZ + \sigma N$. Compute
# $I(Z; aZ + \sigma N)$ for $\sigma = 0.1$, with $a = 1$ and $a = 0.01$. Shrinking is invertible; why did the
# information change? How would you protect a comparison of two networks against it?
#
# <details><summary>Solution</summary>
#
# It is a Gaussian channel with $\mathrm{snr} = a^2/\sigma^2$: $\frac12 \log(1 + 100) = 2.308$ nats for $a = 1$, and
# $\frac12 \log(1 + 0.01) = 0.005$ nats for $a = 0.01$. The pair $(Z, aZ)$ shares infinitely much either way; the noise
# was added *after* shrinking and did not shrink along, and $Z \mapsto aZ + \sigma N$ is not invertible. To compare
# networks, bring features to one scale first (unit length, unit variance, or ranks), or let the resolution scale with
# them, and say which. Otherwise a network can "lose information" by a change of units.
#
# </details>
