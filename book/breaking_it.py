# %% [markdown]
# # Breaking it
#
# Unlearnable pictures are published once and then lie there, while whoever collects them can try whatever comes to
# mind. So the question that matters to an owner is not how far an unsuspecting victim falls, but what is left when the
# victim fights back. This chapter gives the victim every defence of the literature that two cores can run, a few lines
# each, and measures three things: how much accuracy comes back, what the defence costs where there is no noise, and what
# it does to the noise. Afterwards you can
#
# - name the defences that undo MI-UE, those that do not, and what each removes;
# - say *why* JPEG beats it, from the quantisation table of the file and the spectrum of the noise;
# - tell a defence that recovers the pictures from one that only looks for better features in them;
# - craft noise that survives JPEG, and say what that costs.
#
# You need [Evaluating MI-UE](evaluating_miue.ipynb), whose cases and tables are used here.

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/breaking_it.ipynb)

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
profile = "cpu"  # "gpu" runs the paper's size: CIFAR-10, ResNet-18, 100 epochs; for a fast GPU and many hours
seed = 0

# %% [markdown]
# ## What may a victim do, and what counts as success?
#
# The victim has the published pictures and their labels, suspects something, and has no clean copies of them. (Where a
# defence does use clean pictures, this is said.) It may change the stored pictures before training, or the training.
# Nobody tells it the method.
#
# Let $a(X)$ be the accuracy of a victim of clean pictures, $a(X')$ of published ones, and $a_D$ the same with a defence
# $D$. Two numbers describe it:
#
# $$\text{recovered} = \frac{a_D(X') - a(X')}{a(X) - a(X')}, \qquad \text{cost} = a(X) - a_D(X).$$
#
# Recovered is 0 for a defence that does nothing and 1 for one that undoes the noise. It can be at most 1 less what the
# defence costs; a defence that costs more than it recovers is not one.

# %%
import functools

import numpy as np
import torch
from scipy import stats
from torch.nn import functional as F

import miue_lib as mi
from miue_lib import defenses, evaluate, explain, plots, results
from miue_lib.kernels import jpeg as codec
from miue_lib.suite import suite

run = mi.profile(profile)
train, test = mi.load(run.data)
train = train.balanced(run.few)
cache = mi.Cache("cache")
data = f"{run.data}, {len(train):,} pictures"
bench = evaluate.Bench(size=run, train=train, test=test, cache=cache, data=data, seed=seed)
tables = suite(run, train)
print(
    f"{len(tables['defenses'])} cases with {run.seeds} seeds; victims train for {dict(run.victim, **run.brief)['epochs']} epochs"
)

# %% [markdown]
# A defence on pictures takes a set of pictures and returns one; a defence in training is called for every batch. Both
# fit in a few lines. Here are two, written out, and the library's beside them: JPEG, which goes through the real file
# format, and MixUp, which trains on mixtures of two pictures and of their labels.

# %%
import io

from PIL import Image


def jpeg_by_hand(images, quality):
    out = []
    for picture in images.images.cpu():
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).squeeze(2).numpy()).save(file, format="JPEG", quality=quality)
        out.append(
            torch.from_numpy(np.array(Image.open(file)))
            .reshape(picture.shape[1], picture.shape[2], -1)
            .permute(2, 0, 1)
        )
    return torch.stack(out)


some = train.subset(slice(0, 200))
for quality in (90, 70, 50, 30, 10):
    assert torch.equal(jpeg_by_hand(some, quality), defenses.jpeg(some, quality=quality).images.cpu())


def mixup_by_hand(model, pictures, labels, generator):
    share = torch.distributions.Beta(1.0, 1.0).sample().item()
    targets = F.one_hot(labels, model.head.out_features).float()
    other = torch.randperm(len(labels))
    return share * pictures + (1 - share) * pictures[other], share * targets + (1 - share) * targets[other]


print("JPEG: every pixel the same as by hand, at five qualities")

# %% [markdown]
# ## What does each defence recover?
#
# Every defence meets clean pictures and three kinds of noise: EM, TUE and MI-UE. Victims are trained for half the
# epochs of other chapters, with and without a defence alike, so compare only within this chapter.

# %%
records = evaluate.side_by_side(tables["defenses"], bench)
table = results.pivot(records)
accuracy = {row: {column: np.array(one.numbers["accuracy"]) for column, one in of.items()} for row, of in table.items()}
figure = plots.heatmap(
    accuracy,
    xlabel="defence",
    ylabel="published with",
    label="accuracy on clean test pictures",
    chance=1 / len(train.classes),
)
plots.show(figure, "Accuracy of victims after clean pictures and three kinds of noise, a column for each defence")

# %%
columns = [column for column in accuracy["clean"] if column != "none"]


def recovered(row, column):
    """One number a seed; nothing for the dear defences that this noise did not meet."""
    if column not in accuracy[row]:
        return []
    before, whole = accuracy[row]["none"], accuracy["clean"]["none"]
    return (accuracy[row][column] - before) / (whole.mean() - before.mean())


def cost(column):
    return accuracy["clean"]["none"] - accuracy["clean"][column]


noises = [row for row in accuracy if row != "clean"]
plots.table(
    sorted(columns, key=lambda column: -recovered("MI-UE", column).mean()),
    {"defence": lambda c: c}
    | {
        f"{row}, recovered": lambda c, row=row: plots.mean_sd(recovered(row, c)) if c in accuracy[row] else "–"
        for row in ["MI-UE", *[n for n in noises if n != "MI-UE"]]
    }
    | {"cost on clean": lambda c: plots.mean_sd(cost(c))},
)

# %% [markdown]
# TEXT-TABLE
#
# Seen over the quality of the file, from hardly to heavily compressed:

# %% tags=["hide-input"]
qualities = (90, 70, 50, 30, 10)
lines = {row: {quality: accuracy[row][f"JPEG {quality}"] for quality in qualities} for row in accuracy}
figure = plots.sweep({"": lines}, ylabel="accuracy on clean test pictures", xlabels="JPEG quality")
plots.show(figure, "Accuracy against JPEG quality after clean pictures and three kinds of noise")

# %% [markdown]
# ## Why does JPEG beat MI-UE?
#
# JPEG cuts a picture into blocks of 8 × 8 pixels and writes each as a sum of 64 cosine patterns, from flat to a
# chequerboard. The coefficient $c_{uv}$ of each pattern is divided by a step $q_{uv}$ that grows with frequency and falls
# with quality, and *rounded*:
#
# $$\hat c_{uv} = q_{uv} \cdot \operatorname{round}(c_{uv} / q_{uv}).$$
#
# A noise is gone wherever it doesn't move a coefficient across a rounding boundary. A budget of 8 levels can change a
# flat coefficient by up to 64, since the pattern sums 64 pixels and is divided by 8; but noise that flickers from pixel to
# pixel spreads over many coefficients, and changes each by little. Here is the mean size of the change, for each pattern,
# beside half a step.

# %%
names = ["random", "tue", "em", "miue"]
title = {"clean": "clean"} | {name: method.title for name, method in mi.METHODS.items()}


def noise_of(name, k):
    return bench.noise(evaluate.Case(table="noise", row=name, column="", model=run.model, method=name), k)


# In another process, where the noise was made that other chapters have kept.
noise = dict(zip(names, cache.at_once([functools.partial(noise_of, name, 0) for name in names]), strict=True))
published = {name: train.with_(one) for name, one in noise.items()}


def coefficients(images):
    """All blocks of the brightness of a set's pictures, in levels: (blocks, 8, 8)."""
    return torch.cat([codec.coefficients(x)[:, 0].flatten(0, 2) for x in images.floats().split(500)])


def by_frequency(values):
    """Sums over the blocks, of flat patterns (u + v = 0), of coarse (1 to 4) and of fine ones (5 to 14)."""
    order = torch.arange(8)[:, None] + torch.arange(8)
    total = values.sum(0)
    return [float(total[(order >= low) & (order <= high)].sum()) for low, high in ((0, 0), (1, 4), (5, 14))]


blocks = coefficients(train)
energy = {name: by_frequency((coefficients(images) - blocks).square()) for name, images in published.items()}
print("share of the noise's energy in patterns that are      flat   coarse     fine")
for name, parts in energy.items():
    print(f"{title[name]:48s}" + "".join(f"{part / sum(parts):9.2f}" for part in parts))

# %% [markdown]
# What survives? Let $C$ be the compression, and compare the compressed published picture with the compressed clean one.
# The part of their difference that points along the noise is
#
# $$\text{survives} = \frac{\langle C(x + \delta) - C(x),\ \delta \rangle}{\langle \delta, \delta \rangle},$$
#
# 1 where the noise comes through whole, 0 where nothing of it does. The rest of the difference, rounding that happened to
# fall the other way, is *disturbance*: noise too, but not the one that was optimised.


# %%
def survives(images, clean, one):
    """Survival, and disturbance in units of the noise's energy; of pictures after a defence."""
    change, delta = images.floats() - clean.floats(), one.delta
    along = float((change * delta).sum() / delta.square().sum())
    return along, float((change - along * delta).square().sum() / delta.square().sum())


print(f"{'':8s}" + "".join(f"{f'JPEG {quality}':>16s}" for quality in qualities) + "     survives | disturbance")
survival = {}
for name, images in published.items():
    found = {
        q: survives(defenses.jpeg(images, quality=q), defenses.jpeg(train, quality=q), noise[name]) for q in qualities
    }
    survival[name] = found
    print(f"{title[name]:8s}" + "".join(f"{along:10.2f} |{rest:4.1f}" for along, rest in found.values()))

# %% tags=["hide-input"]
from matplotlib import pyplot as plt

left = {}
for quality in (90, 50, 10):
    step = codec.quantisation_table(quality).to(blocks)
    clean_level = (blocks / step).round()
    change = coefficients(published["miue"]) - blocks
    kept = step * (((blocks + change) / step).round() - clean_level)
    left[f"JPEG {quality}"] = (kept * change).sum(0) / change.square().sum(0)
with plt.rc_context(plots.STYLE):
    figure, row = plt.subplots(1, 4, figsize=(9.4, 2.7))
    image = row[0].imshow((coefficients(published["miue"]) - blocks).abs().mean(0), cmap="cividis")
    row[0].set_title("MI-UE: mean change")
    figure.colorbar(image, ax=row[0], shrink=0.7, label="levels")
    for axes, (name, share) in zip(row[1:], left.items(), strict=True):
        image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1)
        axes.set_title(f"survives {name}")
    figure.colorbar(image, ax=row[1:], shrink=0.7, label="share")
    for axes in row:
        axes.set(xlabel="horizontal", xticks=[0, 7], yticks=[0, 7])
    row[0].set_ylabel("vertical frequency")
    plt.close(figure)
plots.show(
    figure,
    "MI-UE's noise by JPEG's 64 patterns: how large its change of each is, and what share of it survives three qualities",
)

# %% [markdown]
# TEXT-WHY
#
# ## What do defences do to the noise?
#
# The same two numbers for every defence that changes pictures, beside what it recovers.

# %%
on_pictures = {
    case.column: case for case in tables["defenses"] if case.row == "MI-UE" and case.defense in defenses.DEFENSES
}
on_pictures = {c: case for c, case in on_pictures.items() if defenses.DEFENSES[case.defense].kind == "pictures"}


def after(column, name):
    """What a defence makes of pictures, as the victims of the table above were given it."""
    case = on_pictures[column]
    images = train if name == "clean" else published[name]
    return cache.pictures(defenses.DEFENSES[case.defense].run, images, **case.defended)


calls = [functools.partial(after, column, name) for column in on_pictures for name in ("clean", "miue")]
defended = dict(zip([(c, n) for c in on_pictures for n in ("clean", "miue")], cache.at_once(calls), strict=True))
kept = {c: survives(defended[c, "miue"], defended[c, "clean"], noise["miue"]) for c in on_pictures}
rows = sorted(on_pictures, key=lambda c: kept[c][0])
plots.table(
    rows,
    {
        "defence": lambda c: c,
        "MI-UE's noise that survives": lambda c: f"{kept[c][0]:.2f}",
        "disturbance": lambda c: f"{kept[c][1]:.1f}",
        "recovered": lambda c: plots.mean_sd(recovered("MI-UE", c)),
        "cost on clean": lambda c: plots.mean_sd(cost(c)),
    },
)

# %% tags=["hide-input"]
some = [int((train.labels == c).nonzero()[5, 0]) for c in range(min(8, len(train.classes)))]
shown = {"published": published["miue"]} | {
    c: defended[c, "miue"] for c in ("JPEG 10", "2 bits", "projection", "D-VAE", "diffusion")
}
figure = plots.pictures(
    {name: images.images[some] for name, images in shown.items()}, [train.classes[int(train.labels[i])] for i in some]
)
plots.show(figure, "Eight pictures published with MI-UE's noise, and what five defences make of them")

# %% [markdown]
# TEXT-DOTO
#
# ## Does adversarial training help?
#
# Adversarial training (Madry et al. 2018) moves every picture of a batch, within a radius $\rho$, to where the network errs
# most, before it learns from it:
#
# $$\min_\theta \sum_i \max_{\lVert \eta_i \rVert_\infty \le \rho} \mathcal{L}\bigl(f_\theta(x'_i + \eta_i), y_i\bigr).$$
#
# With $\rho \ge \varepsilon$ the adversary could take the noise away altogether. It is the defence that REM was made to
# survive. The published victims take ten steps of $2/255$; ours, at this size, two steps of $\frac34 \rho$, and *robust*
# accuracy is under ten steps on clean test pictures.

# %%
resisted = results.pivot(evaluate.side_by_side(tables["adversarial"], bench))
radii = (0, 2, 4, 6, 8)


def column_of(radius):
    return f"AT-{radius}" if radius else "none"


panels = {"clean test pictures": {}, "under attack": {}}
for row in resisted:
    panels["clean test pictures"][row] = {r: resisted[row][column_of(r)].numbers["accuracy"] for r in radii}
    panels["under attack"][row] = {r: resisted[row][column_of(r)].numbers["robust accuracy"] for r in radii if r}
axis = "radius ρ of training and of the attack (levels of 255)"
figure = plots.sweep(panels, ylabel="accuracy", xlabels=dict.fromkeys(panels, axis))
plots.show(
    figure, "Accuracy of adversarially trained victims against the radius, on clean test pictures and under attack"
)

# %%
theirs = results.pivot(results.find(results.published("Zhu"), table="adversarial"))
plots.table(
    [(row, column_of(r)) for r in radii for row in resisted],
    {
        "noise": lambda at: at[0],
        "training": lambda at: at[1],
        "accuracy": lambda at: plots.mean_sd(resisted[at[0]][at[1]].numbers["accuracy"]),
        "robust accuracy": lambda at: (
            plots.mean_sd(resisted[at[0]][at[1]].numbers["robust accuracy"]) if at[1] != "none" else "–"
        ),
        "published, CIFAR-10": lambda at: (
            f"{theirs[at[0]][at[1]].mean():.3f}" if at[1] in theirs.get(at[0], {}) else "–"
        ),
    },
)

# %% [markdown]
# TEXT-AT
#
# ## Is it enough to stop early, or to mend the last layer?
#
# Two defences cost almost nothing. One is not to train for long: [The zoo](the_zoo.ipynb) saw victims at their best after
# a few epochs. A victim that has no clean pictures cannot see when, but it can train for half the epochs, with the
# schedule of the learning rate in half the time. The other needs some clean pictures: keep the features that the
# published pictures taught, and fit a new last layer to 20 clean pictures of each class (Sandoval-Segura et al. 2023).

# %%
lengths = results.pivot(evaluate.side_by_side(tables["epochs"], bench))
short, whole = lengths["clean"]


def mended(name, k):
    """Accuracy of a victim with a new last layer, fitted to clean pictures that are not among the published ones."""
    case = next(case for case in tables["epochs"] if case.method == name and case.column == whole)
    victim, _ = bench.victim(case, k)
    seen, unseen = mi.features(victim, few), mi.features(victim, test)
    return explain.refit_head(seen, few.labels, unseen, test.labels, seed=seed + k)


everything, _ = mi.load(run.data)
few = everything.subset(torch.arange(len(everything)).flip(0)).balanced(
    20 * len(train.classes)
)  # the last of each class
rows = [title_row for title_row in lengths]
named = {method.title: name for name, method in mi.METHODS.items()} | {"clean": "clean"}
calls = [functools.partial(mended, named[row], k) for row in rows for k in range(run.seeds)]
mended_accuracy = np.array(list(cache.at_once(calls))).reshape(len(rows), run.seeds)
plots.table(
    range(len(rows)),
    {
        "noise": lambda i: rows[i],
        whole: lambda i: plots.mean_sd(lengths[rows[i]][whole].numbers["accuracy"]),
        short: lambda i: plots.mean_sd(lengths[rows[i]][short].numbers["accuracy"]),
        f"{whole}, new last layer": lambda i: plots.mean_sd(mended_accuracy[i]),
    },
)

# %% [markdown]
# TEXT-SHORT
#
# ## Can the noise be made to survive JPEG?
#
# If the owner knows what the victim will do, the noise can be crafted through it. Compression has no useful gradient,
# since rounding is flat almost everywhere; but one may round forwards, and pass the gradient backwards as if nothing had
# been rounded (a *straight-through* estimate; Athalye, Carlini and Wagner 2018). `craft("miue", …, jpeg=10)` does that in both
# phases: the surrogate trains on what JPEG leaves, and the noise is moved for it. Both variants below are crafted in
# few rounds, with a larger step, since a change below half a step of the table is rounded away.

# %%
adapted = {"MI-UE": {}, "MI-UE through JPEG 10": {"jpeg": 10}}
larger = dict(run.many) | {"step": 4 / 255} if profile == "cpu" else {}
seen_as = {
    "as published": {},
    "JPEG 10": {"defense": "jpeg", "defended": {"quality": 10}},
    "JPEG 30": {"defense": "jpeg", "defended": {"quality": 30}},
}
cases = [
    evaluate.Case(
        table="adaptive",
        row=row,
        column=column,
        model=run.model,
        method="miue",
        crafted=larger | changes,
        trained=run.brief,
        **way,
    )
    for row, changes in adapted.items()
    for column, way in seen_as.items()
]
adaptive = results.pivot(evaluate.side_by_side(cases, bench))


def seen(row, k):
    """How visible the noise is, and how much a victim of it still tells of clean pictures."""
    case = next(case for case in cases if case.row == row and case.column == "as published")
    one = bench.noise(case, k)
    victim, _ = bench.victim(case, k)
    told = cache.keep(explain.sliced_mi, victim, train, train.with_(one), seed=seed + 1 + k)
    return mi.visibility(train, one).summary | {"MI": told["value"], "lost": told["own"] - told["value"]}


looks = {row: list(cache.at_once([functools.partial(seen, row, k) for k in range(run.seeds)])) for row in adapted}
plots.table(
    adapted,
    {"noise": lambda row: row}
    | {
        column: lambda row, column=column: plots.mean_sd(adaptive[row][column].numbers["accuracy"])
        for column in seen_as
    }
    | {
        "PSNR (dB)": lambda row: plots.mean_sd([one["psnr"] for one in looks[row]]),
        "SSIM": lambda row: plots.mean_sd([one["ssim"] for one in looks[row]]),
        "MI (nats)": lambda row: plots.mean_sd([one["MI"] for one in looks[row]]),
        "lost (nats)": lambda row: plots.mean_sd([one["lost"] for one in looks[row]]),
    },
)
