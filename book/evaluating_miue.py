# %% [markdown]
# # Evaluating MI-UE
#
# One victim that fails is an anecdote. The paper (Zhu, Miao, Dong and Gao [2026](https://arxiv.org/abs/2603.03725))
# backs its method with tables: other methods, other victims, defences, an ablation. Its reviewers asked for more: several
# seeds, and what happens when a setting moves. This chapter runs these tables, each with three seeds, and puts the
# published number beside ours wherever there is one. Afterwards you can
#
# - read a robustness table, and ask it for its controls;
# - say which networks MI-UE's noise spoils although it was crafted with another one, and which it does not;
# - say how many of the pictures must carry noise before a victim is worse off than without them;
# - name the settings that matter, and the ones that do not;
# - run the same tables at the paper's size, in pieces, and record them.
#
# What a victim can do about it is the subject of [Breaking it](breaking_it.ipynb). You need [Building
# MI-UE](building_miue.ipynb) for the method and [The zoo](the_zoo.ipynb) for the others.

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/evaluating_miue.ipynb)

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
# ## What is one number of a table?
#
# The accuracy $a$ of one victim on clean test pictures: of one noise, by one seed, of one network, trained by one
# recipe. Repeat it with $n$ seeds, of the crafting *and* of the victim, and there is a mean and a standard deviation,
#
# $$\bar a = \frac1n \sum_{i=1}^n a_i, \qquad s^2 = \frac1{n-1} \sum_{i=1}^n (a_i - \bar a)^2,$$
#
# so that two means of $n = 3$ differ beyond chance if they lie some $t\, s \sqrt{2/3}$ apart, with $t = 2.8$ for 95 per
# cent, as long as both have this $s$ (Student's $t$, four degrees of freedom). Tables in this field mostly hold one
# victim a cell; then nothing can be said of differences of a few points.
#
# In `miue_lib.evaluate`, a cell is a `Case`: whose noise, on which of the pictures, what the victim does about it, what
# network it is. `miue_lib.suite` lists the cases of every table, and a `Bench` runs them at the size of the profile.

# %%
import functools
from dataclasses import replace

import numpy as np
import torch
from scipy import stats

import miue_lib as mi
from miue_lib import evaluate, plots, results
from miue_lib.suite import pretrained, suite

run = mi.profile(profile)
train, test = mi.load(run.data)
train = train.balanced(run.few)
bench = evaluate.Bench(
    size=run, train=train, test=test, cache=mi.Cache("cache"), data=f"{run.data}, {len(train):,} pictures", seed=seed
)
tables = suite(run, train)
for name, cases in tables.items():
    print(f"{name:12s} {len(cases):3d} cases, such as: {cases[-1].row}, {cases[-1].column}")

# %% [markdown]
# One of them by hand, before the library does hundreds: MI-UE's noise on three fifths of each class, the rest published
# clean, and one victim.

# %%
case = next(case for case in tables["share"] if case.column == "60 %" and not case.clean_part)


def by_hand():
    noisy = train.with_(bench.noise(case, 0))
    generator = torch.Generator().manual_seed(seed)
    with_noise = torch.zeros(len(train), dtype=torch.bool)
    for c in range(10):
        members = (train.labels == c).nonzero()[:, 0].cpu()
        members = members[torch.randperm(len(members), generator=generator)]
        with_noise[members[: round(0.6 * len(members))]] = True
    chosen = with_noise.to(train.device)[:, None, None, None]
    published = replace(train, images=torch.where(chosen, noisy.images, train.images))
    victim = mi.build(run.model, published, seed=seed + 1)
    mi.fit(victim, published, seed=seed + 1, **(dict(run.victim) | dict(run.brief)))
    return mi.accuracy(victim, test)


def by_library():
    return bench.numbers(case, 0)["accuracy"]


# One after the other, in another process, where noise and victims of the other chapters were made too.
both = [next(iter(bench.cache.at_once([way]))) for way in (by_hand, by_library)]
print(f"accuracy by hand {both[0]}, by the library {both[1]}")
assert both[0] == both[1]

# %% [markdown]
# ## How does it compare with what is published?
#
# The methods of [The zoo](the_zoo.ipynb), whose noise and victims are read from disk if that chapter ran here before.
# Ours are small grey pictures of clothes and a network of 78 thousand weights; the published numbers are of CIFAR-10
# and ResNet-18. So the heights cannot be compared, but the order can. A column stands ready for this book's own runs at
# that size.

# %%
records = evaluate.side_by_side(tables["methods"], bench)
recorded = [
    one for one in results.recorded() if one.profile == "gpu" and one.table == "methods" and one.data == "CIFAR-10"
]
paper = results.find(results.published("Zhu"), table="methods", data="CIFAR-10", column="ResNet-18")
rows = results.beside({"here": records, "recorded": recorded, "published": paper})


def shown(record):
    if record is None:
        return "–"
    values = record.numbers["accuracy"]
    return plots.mean_sd(values) if len(values) > 1 else f"{values[0]:.3f}"


def on_gpu(record):
    return "no GPU result recorded yet" if record is None else shown(record)


order = sorted((row for row in rows if rows[row]["here"]), key=lambda row: -rows[row]["here"].mean())
plots.table(
    order,
    {
        "noise": lambda row: row,
        "here": lambda row: shown(rows[row]["here"]),
        "published, CIFAR-10": lambda row: shown(rows[row]["published"]),
        "this book, gpu": lambda row: on_gpu(rows[row]["recorded"]),
    },
)

# %%
both = [row for row in order if rows[row]["published"]]
ours, theirs = ([rows[row][who].mean() for row in both] for who in ("here", "published"))
rho, effective = stats.spearmanr(ours, theirs), [row for row in both if row not in ("clean", "random")]
among = stats.spearmanr(*([rows[row][who].mean() for row in effective] for who in ("here", "published")))
print(f"rank correlation of ours with the published accuracies over {len(both)} rows: {rho.statistic:.2f}")
print(f"over the {len(effective)} that are neither clean nor random: {among.statistic:.2f} (p = {among.pvalue:.2f})")
highest = {row: rows[row]["here"].mean("highest accuracy") for row in order}
print("highest accuracy after any epoch:", ", ".join(f"{row} {value:.2f}" for row, value in highest.items()))

# %% [markdown]
# ## Which victims does it spoil?
#
# Noise is crafted with one network and meets whatever the victim happens to train. The paper's table has ResNet-50,
# DenseNet-121, a vision transformer and small networks; so has ours, at a size that two cores can train (the profile's
# `transfer` says which stands for which). All noise is crafted with the profile's surrogate, {print run.model}; a cell
# is a victim of the kind named above, after six epochs.

# %%
transfer = results.pivot(evaluate.side_by_side(tables["transfer"], bench))
columns = list(run.transfer)
cells = {row: {column: transfer[row][column].numbers["accuracy"] for column in columns} for row in transfer}
figure = plots.heatmap(
    cells,
    xlabel="victim",
    ylabel="published with",
    label="accuracy on clean test pictures",
    chance=1 / len(train.classes),
)
plots.show(figure, "Accuracy of nine kinds of victims after clean pictures and three kinds of noise")

# %%
theirs = results.pivot(results.find(results.published("Zhu"), table="transfer"))
gap = {
    row: {column: np.subtract(cells["clean"][column], cells[row][column]) for column in columns}
    for row in cells
    if row != "clean"
}
for column in columns:
    words = []
    for row in gap:
        lost = gap[row][column]
        of_paper = ""
        if column in theirs.get("clean", {}) and column in theirs.get(row, {}):
            of_paper = f" ({theirs['clean'][column].mean() - theirs[row][column].mean():+.2f})"
        words.append(f"{row} {lost.mean():+.3f} ± {lost.std(ddof=1):.3f}{of_paper}")
    print(f"{column:13s} {', '.join(words)}")
print("accuracy below the same kind of victim on clean pictures; in brackets the published, on CIFAR-10")

# %% [markdown]
# TEXT-TRANSFER
#
# ### What if the victim does not begin from scratch?
#
# Few people train from random weights. The published table has no such row. Weights of other people's making are not at
# hand here, so this victim makes its own, from clean pictures without labels: 6,000 others from the same source, each
# turned by a quarter, a half, three quarters or not at all, and the network learns by how much (Gidaris, Singh and
# Komodakis 2018). With these features it begins, and trains on the published pictures by the usual recipe.

# %%
everything, _ = mi.load(run.data)
used = torch.zeros(len(everything), dtype=torch.bool)
for c in range(len(train.classes)):
    used[(everything.labels == c).nonzero()[: len(train) // len(train.classes), 0]] = True
others = everything.subset(~used)  # `balanced` takes the first of each class
begun = None
if len(others) and others.images.shape[2] == others.images.shape[3]:
    turns = torch.randint(4, (len(others),), generator=torch.Generator().manual_seed(seed))
    turned = torch.stack([x.rot90(int(k), (1, 2)) for x, k in zip(others.images.cpu(), turns, strict=True)])
    turned = mi.ImageSet(turned, turns, ("upright", "a quarter", "half", "three quarters")).to(train.device)
    start, history = bench.cache.fit(run.model, turned, seed=seed, **run.victim)
    print(f"{len(turned):,} turned pictures; how far is told right for {history.train_accuracy[-1]:.2f} of them")
    begun = results.pivot(evaluate.side_by_side(pretrained(run, start), replace(bench, start=start)))
    scratch = results.pivot(evaluate.side_by_side([c for c in tables["defenses"] if c.column == "none"], bench))
    (column,) = begun["clean"]
    for row in begun:
        before, after = scratch[row]["none"].numbers["accuracy"], begun[row][column].numbers["accuracy"]
        print(f"{row:6s} from scratch {plots.mean_sd(before)}, from features of turned pictures {plots.mean_sd(after)}")
else:
    print("All pictures are used: none are left to learn from beforehand.")

# %% [markdown]
# TEXT-PRETRAINED
#
# ## How many pictures must carry noise?
#
# Whoever publishes rarely owns all that a victim collects. So let only a share of every class carry MI-UE's noise, and
# compare with a victim that gets the *clean part alone*: as long as the two are equal, the noise has not spoiled
# anything; it has only withheld its own pictures.

# %%
shares = results.pivot(evaluate.side_by_side(tables["share"], bench))
one_class = shares["MI-UE"].pop("one class")


def percent(column):
    return float(column.removesuffix(" %"))


lines = {
    row: {
        percent(column): record.numbers["accuracy"]
        for column, record in sorted(of.items(), key=lambda i: percent(i[0]))
    }
    for row, of in shares.items()
}
figure = plots.sweep({"": lines}, ylabel="accuracy on clean test pictures", xlabels="pictures with noise (%)")
plots.show(
    figure,
    "Accuracy against the share of pictures with noise: close to that of victims of the clean part alone up to 80 or 90 "
    "per cent, then a steep fall",
)

# %%
clean = np.array(lines["MI-UE"][0.0])
for share in sorted(lines["the clean part alone"]):
    mixed, alone = np.array(lines["MI-UE"][share]), np.array(lines["the clean part alone"][share])
    less = mixed - alone
    half = stats.t.ppf(0.975, len(less) - 1) * less.std(ddof=1) / np.sqrt(len(less))
    print(
        f"{share:3.0f} % with noise: {plots.mean_sd(mixed)}, the clean part alone {plots.mean_sd(alone)}, "
        f"difference {less.mean():+.3f} [{less.mean() - half:+.3f}, {less.mean() + half:+.3f}]"
    )

# %% [markdown]
# TEXT-SHARE
#
# And if one owner publishes one class only? Then a victim that has learnt the other nine classes from clean pictures
# meets a class that it knows by its noise.

# %%
case = next(case for case in tables["share"] if case.column == "one class")
whole = next(case for case in tables["share"] if case.column == "0 %")


def by_class(case, k):
    """Accuracy on the clean test pictures of each class, and which class the first one's are taken for."""
    victim, _ = bench.victim(case, k)
    said = victim.head(mi.features(victim, test)).argmax(1)
    right = [float((said == test.labels)[test.labels == c].float().mean()) for c in range(10)]
    return right, said[test.labels == 0].bincount(minlength=10).cpu()


spoilt, sound = (
    list(bench.cache.at_once([functools.partial(by_class, of, k) for k in range(run.seeds)])) for of in (case, whole)
)
first = test.classes[0]
for name, seen in (("all clean", sound), (f"noise on {first!r} alone", spoilt)):
    own, rest = [right[0] for right, _ in seen], [np.mean(right[1:]) for right, _ in seen]
    taken = sum(counts for _, counts in seen)
    taken[0] = 0
    print(
        f"{name}: {first!r} right {plots.mean_sd(own)}, the other classes {plots.mean_sd(rest)}; "
        f"most often taken for {test.classes[int(taken.argmax())]!r}"
    )

# %% [markdown]
# TEXT-ONE
#
# ## Which settings matter?
#
# The reviewers asked for the budget $\varepsilon$, the step $\alpha$, the steps $m$ a round, the temperature $\tau$ and the
# weight $\zeta$ of the distance term, and for other surrogates. Each line of the figure changes one of them and leaves the
# rest; with $\varepsilon$ the step grows in proportion, since otherwise few rounds would not reach its end. All of it is
# crafted in as few rounds as the profile's `many` says, so that the usual setting stands among the others.

# %%
varied = results.pivot(evaluate.side_by_side(tables["sensitivity"], bench))
usual = dict(run.noise["miue"]) | dict(run.swept)
words = {
    "epsilon": ("budget ε (levels of 255)", 255),
    "step": ("step α (levels of 255)", 255),
    "steps": ("steps a round", 1),
    "temperature": ("temperature τ", 1),
    "distance_weight": ("distance weight ζ", 1),
}
same = varied["epsilon"]["8/255"].numbers["accuracy"]
panels = {}
for setting, (title, scale) in words.items():
    points = {}
    for case in tables["sensitivity"]:
        if case.row == setting:
            points[scale * case.crafted[setting]] = varied[setting][case.column].numbers["accuracy"]
    if setting != "epsilon" and setting in usual:
        points[scale * usual[setting]] = same
    panels[title] = {"MI-UE": dict(sorted(points.items()))}
figure = plots.sweep(panels, ylabel="accuracy on clean test pictures", xlabels={title: title for title in panels})
plots.show(figure, "Accuracy of victims against five settings of MI-UE")

# %%
print(f"usual setting: {plots.mean_sd(same)}")
for setting, of in varied.items():
    print(
        f"{setting:16s} "
        + ", ".join(f"{column}: {plots.mean_sd(one.numbers['accuracy'])}" for column, one in of.items())
    )

# %% [markdown]
# TEXT-SENS
#
# ## Which term of the loss does it?
#
# MI-UE's loss has a term that makes features of a class similar and one that makes them close. The published ablation
# takes away one at a time. Here the same, with three seeds of noise and victims:

# %%
ablated = evaluate.side_by_side(tables["ablation"], bench)
theirs = results.find(results.published("Zhu"), table="ablation", data="CIFAR-10")
rows = results.beside({"here": ablated, "published": theirs})
full = np.array(rows["MI-UE"]["here"].numbers["accuracy"])
for row, of in rows.items():
    more = np.array(of["here"].numbers["accuracy"]) - full
    half = stats.t.ppf(0.975, len(more) - 1) * more.std(ddof=1) / np.sqrt(len(more))
    interval = f", {more.mean():+.3f} [{more.mean() - half:+.3f}, {more.mean() + half:+.3f}]" if row != "MI-UE" else ""
    print(f"{row}: {shown(of['here'])}{interval}; published {shown(of['published'])}")

# %% [markdown]
# TEXT-ABLATION
#
# ## And at the paper's size?
#
# The same cases run on a GPU, on CIFAR-10, CIFAR-100 or any folder of pictures, from the command line:
#
# ```
# python -m miue_lib evaluate --suite paper --out book/results --data cifar10 --minutes 9
# ```
#
# Each case becomes a small JSON file with its settings, seeds, numbers, the fingerprints of the pictures, the version of
# the code and the hardware. Stopped after some minutes, or killed, the same command goes on where it was. What has been
# recorded so is on this page; nothing else is.

# %%
ours = results.recorded()
print(f"{len(ours)} records in book/results, {sum(one.profile == 'gpu' for one in ours)} of them of the profile gpu")
if not any(one.profile == "gpu" for one in ours):
    print("no GPU result recorded yet")

# %% [markdown]
# All numbers of this page, everything recorded, and everything published that this book compares with. Click on a
# header to sort, type to filter: it works in the page itself.

# %%
of_page = [one for table in (transfer, shares, varied) for row in table.values() for one in row.values()]
everything_shown = [*records, *of_page, one_class, *ablated, *ours, *results.published()]
plots.sortable(
    everything_shown,
    {
        "table": lambda one: one.table,
        "noise": lambda one: one.row,
        "victim": lambda one: one.column,
        "accuracy": lambda one: shown(one) if "accuracy" in one.numbers else "",
        "pictures": lambda one: one.data,
        "source": lambda one: one.source or f"this book, {one.profile}",
    },
    filters=("table", "pictures", "source"),
    label="Records",
)
