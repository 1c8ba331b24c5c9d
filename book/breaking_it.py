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

# %% tags=["setup", "hide-cell"]

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
    """One number a seed."""
    before, whole = accuracy[row]["none"], accuracy["clean"]["none"]
    return (accuracy[row][column] - before) / (whole.mean() - before.mean())


def cost(column):
    return accuracy["clean"]["none"] - accuracy["clean"][column]


noises = [row for row in accuracy if row != "clean"]
plots.table(
    sorted(columns, key=lambda column: -recovered("MI-UE", column).mean()),
    {"defence": lambda c: c}
    | {
        f"{row}, recovered": lambda c, row=row: plots.mean_sd(recovered(row, c))
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
# $$\\hat c_{uv} = q_{uv} \\cdot \\operatorname{round}(c_{uv} / q_{uv}).$$
#
# A noise is gone wherever it doesn't move a coefficient across a rounding boundary. A budget of 8 levels can change a
# flat coefficient by up to 64, since the pattern sums 64 pixels and is divided by 8; but noise that flickers from pixel to
# pixel spreads over many coefficients, and changes each by little. Here is the mean size of the change, for each pattern,
# beside half a step.

# %%
names = ["random", *run.rows[1:]]
title = {"clean": "clean"} | {name: method.title for name, method in mi.METHODS.items()}


def noise_of(name, k=0):
    case = evaluate.Case(table="noise", row=name, column="", model=run.model, method=name)
    return bench.noise(case, k)


noise = {name: noise_of(name) for name in names}
published = {name: train.with_(one) for name, one in noise.items()}


def coefficients(images):
    """All blocks of the brightness of a set's pictures: (blocks, 8, 8), in levels."""
    return torch.cat([codec.coefficients(x)[:, 0].flatten(0, 2) for x in images.floats().split(500)])


clean_blocks = coefficients(train)
moved = {name: coefficients(images) - clean_blocks for name, images in published.items()}
quantised = {}
for quality in qualities:
    step = codec.quantisation_table(quality).to(clean_blocks)
    before = (clean_blocks / step).round()
    for name, change in moved.items():
        quantised[name, quality] = step * ((clean_blocks + change) / step).round() - step * before

print("share of the noise's energy that is along the change of the stored picture, by quality (all blocks, first seed)")
print(
    f"{'':8s}"
    + "".join(f"{quality:>8d}" for quality in qualities)
    + "   mean |change| of flat, middle and finest patterns"
)
for name, change in moved.items():
    left = [float((quantised[name, q] * change).sum() / change.square().sum()) for q in qualities]
    sizes = [float(change[:, u, u].abs().mean()) for u in (0, 3, 7)]
    print(
        f"{title[name]:8s}"
        + "".join(f"{share:8.2f}" for share in left)
        + "   "
        + ", ".join(f"{size:.1f}" for size in sizes)
    )
