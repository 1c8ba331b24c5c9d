# %% [markdown]
# # Breaking it
#
# Unlearnable pictures are published once and then lie there, while whoever collects them can try whatever comes to
# mind. So the question that matters to an owner is not how far an unsuspecting victim falls, but what is left when the
# victim fights back. This chapter gives the victim defences of the literature that two cores can run, and measures
# three things: how much accuracy comes back, what the defence costs where there is no noise, and what it does to the
# noise. Afterwards you can
#
# - name the defences that undo MI-UE here, those that do not, and what each of them costs;
# - say, from the quantisation table of the file and the spectrum of the noise, when JPEG beats a noise, and when not;
# - measure what a defence leaves of a noise, and test whether that explains what it recovers;
# - craft noise *through* JPEG, and say what that buys.
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
# Recovered is 0 for a defence that does nothing and 1 for one that undoes the noise. Read both together: what a victim
# ends up with is $a_D(X')$, and a defence that costs much cannot recover all.

# %%
import functools
from dataclasses import replace

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


about = results.hardware(train.device)
print(f"{about['processor']}, {about['cores']} cores, {about.get('gpu', 'no GPU')}, torch {about['torch']}")
print(
    f"{len(tables['defenses'])} cases with {run.seeds} seeds; victims train with {dict(run.victim) | dict(run.brief)}"
)

# %% [markdown]
# A defence on pictures takes a set of pictures and returns one; a defence in training is called for every batch. Both
# fit in a few lines. Two are written out below: JPEG, which goes through the real file format, beside the library's;
# and MixUp, which trains on mixtures of two pictures and of their labels. The table further down has these:
#
# - **JPEG 90 … 10, grayscale**: compresses every picture, or takes its colour, as Image Shortcut Squeezing does (ISS;
#   Liu, Zhao and Larson 2023); **2 bits** keeps the two highest of eight bits of every value.
# - **Projection**: removes the directions in which a linear classifier tells the published classes apart
#   (Sandoval-Segura et al. 2023).
# - **Cutout**: blanks a square of half the side (DeVries and Taylor 2017). **CutMix** and **MixUp**: train on
#   patchworks (Yun et al. 2019) or mixtures (Zhang et al. 2018) of two pictures.
# - **UEraser**: changes brightness, contrast and shape at random and strongly (*lite*), or trains on the worst of five
#   such draws (*max*; Qin et al. 2023).
# - **VAE**: tells every picture in few nats, with an autoencoder trained on the published pictures; the second stage of
#   D-VAE (Yu et al. 2024), without its disentangling first.
# - **Diffusion**: drowns every picture in noise and denoises it, as AVATAR does (Dolatabadi et al. 2023), with a small
#   model that is trained on the published pictures.
#
# The two purifiers are small and short: a few hundred steps each.

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
    share = torch.rand((), generator=generator, device=labels.device)  # Beta(1, 1)
    other = torch.randperm(len(labels), generator=generator, device=labels.device)
    targets = F.one_hot(labels, model.head.out_features).float()
    return share * pictures + (1 - share) * pictures[other], share * targets + (1 - share) * targets[other]


print("JPEG: every pixel the same as by hand, at five qualities")
for name, defense in {"by hand": mixup_by_hand, "the library's": defenses.MixUp()}.items():
    history = mi.fit(mi.build(run.model, some, seed=1), some, seed=1, epochs=2, defense=defense)
    print(f"MixUp {name}: loss of a victim of 200 pictures after two epochs {history.loss[-1]:.2f}")

# %% [markdown]
# ## What does each defence recover?
#
# Every defence meets clean pictures and MI-UE. Victims are trained for fewer epochs than in most other chapters, with
# and without a defence alike, so compare only within this chapter.

# %%
records = evaluate.side_by_side(tables["defenses"], bench)
table = results.pivot(records)
accuracy = {row: {column: np.array(one.numbers["accuracy"]) for column, one in of.items()} for row, of in table.items()}
figure = plots.heatmap(
    accuracy,
    xlabel="defence",
    ylabel="published with",
    label="accuracy",
    chance=1 / len(train.classes),
)
plots.show(figure, "Accuracy of victims after clean pictures and of MI-UE's, a column for each defence")

# %%
columns = [column for column in accuracy["clean"] if column != "none"]


def recovered(row, column):
    """One number a seed."""
    before, whole = accuracy[row]["none"], accuracy["clean"]["none"]
    return (accuracy[row][column] - before) / (whole.mean() - before.mean())


def cost(column):
    return accuracy["clean"]["none"] - accuracy["clean"][column]


plots.table(
    sorted(columns, key=lambda column: -recovered("MI-UE", column).mean()),
    {"defence": lambda c: c}
    | {
        f"{row}, recovered": lambda c, row=row: plots.mean_sd(recovered(row, c)) if c in accuracy[row] else "–"
        for row in ("MI-UE", *(row for row in accuracy if row not in ("clean", "MI-UE")))
    }
    | {"cost on clean": lambda c: plots.mean_sd(cost(c))},
)

# %% [markdown]
# *Mean and standard deviation of three seeds, of noise and of victim. About 0.1 of each deviation of "recovered" is
# that of the undefended victims; most accuracies in the figure are tighter.* Two bits a pixel, the random changes of
# UEraser lite and the two purifiers bring most of the accuracy back, about eight tenths and more. Mixing pictures, by
# patchwork or by MixUp, brings about two thirds back. UEraser max recovers about half, and that is all it could: its
# victims of MI-UE are about as good as its clean ones, which lose about twelve points in a hundred to it. Cutout does
# next to nothing. And what is said to beat this noise, JPEG, does not help at any quality: what it recovers is about
# zero at quality 90 and rather below it at the others, by about two deviations at most.
#
# In the published tables it is otherwise. On CIFAR-10 JPEG at quality 10 brings victims of EM back to 0.81 and of six
# other kinds of noise to 0.69 to 0.85, where a clean victim under JPEG has 0.85 ([Qin et al.
# 2024](https://arxiv.org/abs/2308.03258); Liu, Zhao and Larson 2023), and the paper reports more than 0.80 for MI-UE
# under ISS and AVATAR. Is that the pictures, or an error of ours? The defence is exactly theirs, as the cell above has
# checked. So look at the noise.
#
# ## Why does JPEG beat noise, and why not here?
#
# JPEG cuts a picture into blocks of 8 × 8 pixels and writes each as a sum of 64 cosine patterns, from flat to a
# chequerboard. The coefficient $c_{uv}$ of each pattern is divided by a step $q_{uv}$ that grows with frequency and as
# quality falls, and *rounded*:
#
# $$\hat c_{uv} = q_{uv} \cdot \operatorname{round}(c_{uv} / q_{uv}).$$
#
# A coefficient below half a step becomes 0, and so does what noise has added to it: that is the fate of fine patterns,
# which are small in most pictures. A large coefficient is only rounded; noise that moves it changes how it is rounded,
# too little in one block and too much in another, and on average it comes through. So what matters is *where* the noise
# sits. The patterns are numbered by their horizontal and vertical frequency, $u$ and $v$.

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
    """Shares of the sum over all blocks, of flat patterns (u + v = 0), coarse ones (1 to 4) and fine ones (5 to 14)."""
    order = torch.arange(8)[:, None] + torch.arange(8)
    total = values.sum(0).cpu()
    parts = [float(total[(order >= low) & (order <= high)].sum()) for low, high in ((0, 0), (1, 4), (5, 14))]
    return [part / sum(parts) for part in parts]


blocks = coefficients(train)
print(f"{'share of the energy in patterns that are':42s}{'flat':>8s}{'coarse':>8s}{'fine':>8s}")
for name, images in published.items():
    energy = by_frequency((coefficients(images) - blocks).square())
    print(f"noise of {title[name]:33s}" + "".join(f"{part:8.2f}" for part in energy))
    if name == "miue" and profile == "cpu":
        assert energy[2] < 0.3, "here MI-UE's noise is coarse"

# %% tags=["hide-input"]
from matplotlib import pyplot as plt

change = coefficients(published["miue"]) - blocks
left = {}
for quality in (90, 50, 10):
    step = codec.quantisation_table(quality).to(blocks)
    kept = step * (((blocks + change) / step).round() - (blocks / step).round())
    left[f"survives JPEG {quality}"] = (kept * change).sum(0) / change.square().sum(0)
with plt.rc_context(plots.STYLE):
    figure, row = plt.subplots(1, 4, figsize=(9.4, 2.7))
    size = row[0].imshow(change.abs().mean(0).cpu(), cmap="cividis")
    row[0].set_title("mean change", fontsize=10)
    figure.colorbar(size, ax=row[0], shrink=0.7, label="size of the coefficient")
    for axes, (name, share) in zip(row[1:], left.items(), strict=True):
        shares = axes.imshow(share.cpu(), cmap="cividis", vmin=0, vmax=1)
        axes.set_title(name, fontsize=10)
    figure.colorbar(shares, ax=row[1:], shrink=0.7, label="share")
    for axes in row:
        axes.grid(visible=False)
        axes.set(xlabel="horizontal u", xticks=[0, 7], yticks=[0, 7])
    row[0].set_ylabel("vertical v")
    plt.close(figure)
plots.show(
    figure,
    "MI-UE's noise by JPEG's 64 patterns: it changes flat and coarse ones most, and these survive all three qualities",
)

# %% [markdown]
# *MI-UE's noise, first seed, all blocks. Left: by how much it changes the coefficient of each pattern. Right: what
# share of that change, measured along itself, is there after rounding, at three qualities.* JPEG does what it is meant
# to do: at quality 10 almost nothing is left of the noise where $u + v$ is large. But on these pictures MI-UE has put
# only a tenth of its energy into fine patterns.
#
# The same can be measured for any defence $C$ that changes pictures, without a look at frequencies. Compare what it
# makes of the published picture and of the clean one:
#
# $$\text{survives} = \frac{\langle C(x + \delta) - C(x),\ \delta \rangle}{\langle \delta, \delta \rangle},$$
#
# over all pictures: 1 where the noise comes through whole, 0 where nothing of it does. The rest of that difference, in
# units of the noise's energy, is *disturbance*: a value that was rounded the other way because of the noise, but that
# nobody has optimised. `explain.survival` computes both, and the records above hold them.

# %%
squeezed = [column for column in columns if "survives" in table["MI-UE"][column].numbers]


def kept(column, what="survives"):
    return table["MI-UE"][column].numbers[what]


plots.table(
    sorted(squeezed, key=lambda column: np.mean(kept(column))),
    {
        "defence": lambda c: c,
        "survives": lambda c: plots.mean_sd(kept(c), 2),
        "disturbance": lambda c: plots.mean_sd(kept(c, "disturbance"), 1),
        "recovered": lambda c: plots.mean_sd(recovered("MI-UE", c), 2),
        "cost on clean": lambda c: plots.mean_sd(cost(c), 3),
    },
)

# %% tags=["hide-input"]
figure = plots.gaps(
    {"MI-UE": {column: (kept(column), recovered("MI-UE", column)) for column in squeezed}},
    xlabel="share of the noise that survives",
    ylabel="accuracy recovered",
)
plots.show(
    figure,
    "Recovered accuracy against the share of MI-UE's noise that survives: high for the three that leave least, near "
    "or below zero for JPEG and projection, where about four fifths and more are left",
)

# %%
means = [[np.mean(values(column)) for column in squeezed] for values in (kept, lambda c: recovered("MI-UE", c))]
rho = stats.spearmanr(*means)
print(f"rank correlation of what survives and what is recovered, {len(squeezed)} defences: ", end="")
print(f"{rho.statistic:+.2f} (p = {rho.pvalue:.3f})")
if profile == "cpu":
    for column in ("2 bits", "VAE", "diffusion"):
        assert np.mean(kept(column)) < np.mean([kept(f"JPEG {quality}") for quality in (90, 70, 50, 30, 10)])
        assert recovered("MI-UE", column).mean() > 0.4
    assert recovered("MI-UE", "JPEG 10").mean() < 0.3

# %% [markdown]
# *Mean and standard deviation of three seeds.* What recovers most leaves least: two bits about two fifths of the noise,
# the purifiers six or seven tenths. JPEG and projection let about four fifths and more pass, and recover nothing. Among
# these six the order is not kept (JPEG 90 leaves most, and does not harm most), so survival is not all, and the rank
# correlation is far from −1; and defences differ in more than that. Does the part that is gone explain the recovery?
# Take exactly so much of the noise away by hand, and nothing else: publish $x + c\,\delta$, rounded, with $c$ from 1
# down to 0.4.


# %%
def weakened(share, k):
    """Accuracy of a victim of MI-UE's noise times `share`."""
    one = noise_of("miue", k)
    less = replace(one, levels=(share * one.levels.float()).round().to(one.levels.dtype))
    _, history = cache.fit(
        run.model, train.with_(less), test=test, seed=seed + 1 + k, **(dict(run.victim) | dict(run.brief))
    )
    return history.test_accuracy[-1]


scales = (1.0, 0.8, 0.6, 0.4)
found = list(cache.at_once([functools.partial(weakened, share, k) for share in scales for k in range(run.seeds)]))
for place, share in enumerate(scales):
    values = found[place * run.seeds :][: run.seeds]
    print(f"{share:.1f} of the noise: accuracy {plots.mean_sd(values)}")

# %% [markdown]
# Four fifths of the noise still do most of the harm, about eight to nine tenths, so JPEG, which leaves as much or more,
# could recover little; that its victims are rather below those of four fifths of the noise, the amount does not
# explain. Two fifths do about a fifth of the harm; two bits leave that much, and recover a little more than that. But
# three fifths still do more than half of the harm, and the purifiers, which leave as much or more, are far better than
# that. So the amount explains most of what two bits do, and that JPEG does not help. Of the purifiers it explains only
# a part: they change what the pictures show as well, and the part of the noise that they leave may not be the part that
# counts.
#
# One more number says where two bits get their power. They send everything below 64 to black, and these pictures are
# black around the edges:

# %%
delta, coarse = (
    noise["miue"].levels.int(),
    [defenses.bit_depth(images, bits=2).images.int() for images in (published["miue"], train)],
)
dark = train.images < 48
for name, where in {"dark pixels (below 48)": dark, "the others": ~dark}.items():
    share = float(((coarse[0] - coarse[1]) * delta)[where].sum() / delta[where].square().sum())
    energy = float(delta[where].square().sum() / delta.square().sum())
    print(f"{name:24s} {energy:.2f} of the noise's energy, of which two bits leave {share:.2f}")

# %% [markdown]
# In the dark nothing of the noise is left. Elsewhere about nine tenths are: one pixel in eight crosses a boundary, and
# then by a whole step of 64, which makes up for the seven that do not. On pictures without black margins expect less of
# it.
#
# ### And on photographs?
#
# Then noise should sit elsewhere, and JPEG should win. This takes other pictures than the book carries. For 4,000 of
# CIFAR-10 (from a copy stored as JPEG files of quality 75) the same table was run once, outside this page, by `python
# -m miue_lib evaluate --profile cpu`; the records lie in `book/results`.

# %%
photographs = [
    one for one in results.recorded() if one.data.startswith("CIFAR-10, JPEG copy") and one.table == "defenses"
]
if photographs:
    natural = results.pivot(photographs)
    one = photographs[0]
    print(f"{one.data}; seeds {one.seeds}; {one.hardware['processor']}, torch {one.hardware['torch']}, {one.date[:10]}")

    def cell(row, column, what, digits):
        numbers = natural[row][column].numbers
        return plots.mean_sd(numbers[what], digits) if what in numbers else "–"

    shown = plots.table(
        natural["clean"],
        {
            "defence": lambda c: c,
            "clean": lambda c: cell("clean", c, "accuracy", 3),
            "MI-UE": lambda c: cell("MI-UE", c, "accuracy", 3),
            "MI-UE survives": lambda c: cell("MI-UE", c, "survives", 2),
        },
    )
    with_survival = [c for c in natural["MI-UE"] if "survives" in natural["MI-UE"][c].numbers]
    rho = stats.spearmanr(
        *([natural["MI-UE"][c].mean(what) for c in with_survival] for what in ("survives", "accuracy"))
    )
    print(f"rank correlation of what survives and accuracy, {len(with_survival)} defences: ", end="")
    print(f"{rho.statistic:+.2f} (p = {rho.pvalue:.3f})")
else:
    shown = "no result recorded yet"
shown

# %% [markdown]
# *4,000 photographs of 32 × 32 in colour, the same small ResNet and recipe; mean and standard deviation of three
# seeds.* Clean victims are right on 0.43 only, so the numbers are low, but the order is plain. Grayscale leaves a tenth
# of the noise, and undoes it: a victim of MI-UE's grey pictures is as good as one of clean grey ones. So nine tenths of
# the noise is in *colours*, of which the book's grey clothes have none. The VAE leaves as little, and does as much.
# JPEG at quality 10, which keeps colours at half the resolution and in coarse steps, leaves two thirds, and recovers a
# part of the accuracy; at 30 and above, four fifths are left and nothing is recovered. What two bits do on clothes they
# do not do here, as expected without black margins: nine tenths are left.
#
# So this is what we can say of JPEG and MI-UE. The noise sits in flat grey patterns on clothes and in colours on
# photographs. JPEG takes little of the first, and of the second only at low quality. The published recoveries are at
# the paper's size, and take the best of grayscale and JPEG for ISS; for JPEG alone at several qualities, which the
# reviewers asked for, no GPU result is recorded yet.
#
# ### Why does projection fail?
#
# Orthogonal projection (Sandoval-Segura et al. 2023) fits a linear classifier to the published pixels and removes its
# directions from every picture. Where noise is linearly separable, those directions are the noise. On these pictures
# they are also the *classes*: a linear classifier is right on 0.72 of clean test pictures ([Evaluating
# MI-UE](evaluating_miue.ipynb)). So it costs clean victims about a quarter of their accuracy, and does not help the
# others, which are rather lower with it: compare with the unprojected control, the column *none*. On photographs, where
# a linear classifier of clean pixels is poor, the table above shows a smaller cost.

# %% tags=["hide-input"]
some = [int((train.labels == c).nonzero()[5, 0]) for c in range(min(8, len(train.classes)))]
after = {case.column: case for case in tables["defenses"] if case.row == "MI-UE"}
chosen = ("JPEG 10", "2 bits", "projection", "VAE", "diffusion")
made = cache.at_once([functools.partial(bench.defended, after[column], published["miue"]) for column in chosen])
rows = {"published": published["miue"].images[some]} | {
    c: images.images[some] for c, images in zip(chosen, made, strict=True)
}
figure = plots.pictures(rows, [train.classes[int(train.labels[i])] for i in some])
plots.show(
    figure,
    "Eight pictures published with MI-UE's noise, and what five defences make of them: the purifiers' are "
    "smooth or grainy",
)

# %% [markdown]
# ## Does adversarial training help?
#
# Adversarial training (Madry et al. 2018) moves every picture of a batch, within a radius $\rho$, to where the network
# errs most, before it learns from it:
#
# $$\min_\theta \sum_i \max_{\lVert \eta_i \rVert_\infty \le \rho} L\bigl(f_\theta(x'_i + \eta_i), y_i\bigr).$$
#
# With $\rho \ge \varepsilon$ the adversary could take the noise away altogether. It is the defence that REM was made to
# survive. The published victims take ten steps of $2/255$; ours, at this size, one step of $1\frac14 \rho$ from a
# random start, and *robust* accuracy is under ten steps on clean test pictures.

# %%
resisted = results.pivot(evaluate.side_by_side(tables["adversarial"], bench))
radii = (0, 2, 4, 6, 8)


def column_of(radius):
    return f"AT-{radius}" if radius else "none"


panels = {"clean test pictures": {}, "under attack": {}}
for row in resisted:
    panels["clean test pictures"][row] = {r: resisted[row][column_of(r)].numbers["accuracy"] for r in radii}
    panels["under attack"][row] = {r: resisted[row][column_of(r)].numbers["robust accuracy"] for r in radii if r}
axis = "radius ρ (levels of 255)"
figure = plots.sweep(panels, ylabel="accuracy", xlabels=dict.fromkeys(panels, axis))
plots.show(
    figure,
    "Accuracy of adversarially trained victims against the radius: from 4 levels on, those of REM and MI-UE "
    "are about equal to clean ones on clean test pictures, and nearly so under attack",
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
# *Mean and standard deviation of three seeds; radius 0 is the plain victim; where a marker is not seen, it lies under
# another.* From a radius of half the budget on, victims of MI-UE and of REM are about as good as clean ones, and nearly
# as robust (about two points in a hundred less at a radius of 4, and less than that at larger ones). That is another
# result than the published one, where MI-UE keeps victims at 0.32 under AT-4 and at 0.71 under AT-8. Those victims
# train for a hundred epochs at ten attack steps, on noise from a hundred rounds. At a quarter of the budget a part of
# the noise is left here too. What adversarial training costs is small on these pictures, about one point in a hundred
# of clean accuracy at a radius of 8; on CIFAR-10 it costs nine.
#
# ## Is it enough to stop early, or to mend the last layer?
#
# Two defences need no more work than none. One is not to train for long: [The zoo](the_zoo.ipynb) saw victims at their
# best after a few epochs. A victim that has no clean pictures cannot see when, but it can train for half the epochs,
# with the schedule of the learning rate in half the time. The other needs some clean pictures: keep the features that
# the published pictures taught, and fit a new last layer to 20 clean pictures of each class (Sandoval-Segura et al.
# 2023).

# %%
lengths = results.pivot(evaluate.side_by_side(tables["epochs"], bench))
short, whole = lengths["clean"]
if profile == "cpu":
    brief, full = (np.mean(lengths["TUE"][column].numbers["accuracy"]) for column in (short, whole))
    assert brief > full, "TUE needs victims that train for long"


def mended(name, k):
    """Accuracy of a victim with a new last layer, fitted to a few clean pictures."""
    case = next(case for case in tables["epochs"] if case.method == name and case.column == whole)
    victim, _ = bench.victim(case, k)
    seen, unseen = mi.features(victim, few), mi.features(victim, test)
    return explain.refit_head(seen, few.labels, unseen, test.labels, seed=seed + k)


# The last of each class, which were not published here (at the profile gpu, which uses all, their clean copies).
everything, _ = mi.load(run.data)
few = everything.subset(torch.arange(len(everything)).flip(0)).balanced(20 * len(train.classes))
rows = list(lengths)
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
# How long a victim trains decides what TUE does. It is undone by impatience: after half the epochs its victims are
# about as good as clean ones after as many; after all of them they are at about half of what clean ones reach, and far
# apart by seed. EM and MI-UE are not undone: half the epochs bring their victims about four points in a hundred at
# most, hardly more than the deviations. (Half the epochs cost a clean victim about three points.) For all three a new
# last layer on the *spoilt* features is right on about three quarters of the test pictures: the features know the
# classes, and it is the head, we think, that has learnt to look for the noise. It takes 20 clean pictures of each
# class, which a victim may well have. (How much of that accuracy an *untrained* network would give is measured in [Does
# MI explain unlearnability?](does_mi_explain.ipynb): 0.6.)
#
# ## Can the noise be made to survive JPEG?
#
# If the owner knows what the victim will do, the noise can be crafted through it. Compression has no useful gradient,
# since rounding is flat almost everywhere; but one may round forwards, and pass the gradient backwards as if nothing
# had been rounded (a *straight-through* estimate; Athalye, Carlini and Wagner 2018). `craft("miue", …, jpeg=10)` does
# that in both phases: the surrogate trains on what JPEG leaves, and the noise is moved for it. Both variants below are
# crafted in few rounds, with a larger step, since a change below half a step of the table is rounded away.

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

# %%
plain, through = (np.array(adaptive[row]["JPEG 10"].numbers["accuracy"]) for row in adapted)
print(f"accuracy after JPEG 10: crafted through it, less plain: {plots.t_interval(through - plain)}")

# %% [markdown]
# (*MI* is the sliced mutual information of the victim's features of clean and of published pictures, and *lost* that of
# clean features with themselves, less MI; see [Does MI explain unlearnability?](does_mi_explain.ipynb).) Here there was
# nothing to adapt to. The plain noise survives JPEG already, and the noise that was crafted through it is no better
# against it, within the seeds, and a little weaker where nobody compresses. It is about as visible. Its victims' MI is
# the same within the deviations, and less of it seems to be lost, though hardly beyond them. The experiment that would
# tell is the one on photographs at the paper's size; the option is there for it, and no GPU result is recorded yet.
#
# ## And at the paper's size?

# %%
recorded = [one for one in results.recorded() if one.profile == "gpu" and one.table in ("defenses", "adversarial")]
theirs = results.find(results.published(), table="defenses")
if not recorded:
    print("no GPU result recorded yet")
plots.sortable(
    [*records, *[one for row in resisted.values() for one in row.values()], *photographs, *recorded, *theirs],
    {
        "noise": lambda one: one.row,
        "defence": lambda one: one.column,
        "accuracy": lambda one: plots.mean_sd(one.numbers["accuracy"]),
        "seeds": lambda one: len(one.numbers["accuracy"]),
        "pictures": lambda one: one.data,
        "source": lambda one: one.source.partition(",")[0] or f"this book, {one.profile}",
    },
    filters=("defence", "pictures", "source"),
    label="Defences",
)

# %% [markdown]
# ## What to remember
#
# - Measure a defence by what it recovers *and* by what it costs on clean pictures, with the undefended control beside
#   it.
# - Measure what survives a defence. Noise in flat and coarse patterns passes JPEG; noise in fine ones does not, nor, at
#   low qualities, noise in colours. Which it is depends on the pictures.
# - Two bits a pixel, small purifiers and random changes of brightness, contrast and shape undo most of MI-UE on these
#   pictures; so does adversarial training from half the budget on, and a new last layer fitted to 20 clean pictures a
#   class.
# - Nothing published can be taken back: whoever publishes noise today meets the defences of tomorrow.
#
# ## Exercises
#
# **1.** A budget of 8 levels, spread evenly over a block of 8 × 8 pixels, changes the flat coefficient by how much? At
# which qualities does that change the stored value for certain? (The first entry of the table is 16 at quality 50, and
# 80 at 10.)
#
# <details><summary>Solution</summary>
#
# The flat pattern has the value 1/8 everywhere, so that its coefficient is an eighth of the sum: $64 \cdot 8 / 8 = 64$.
# A change crosses a boundary for certain if it is a whole step or more: at quality 50, where it is four steps. At
# quality 10 it is four fifths of a step, so that in one block of five nothing changes, and in the other four the change
# is 80.
#
# </details>
#
# **2.** Two bits keep the highest two of eight. Which noise of 8 levels would survive that best, and what would it look
# like?
#
# <details><summary>Solution</summary>
#
# One that moves only pixels near 64, 128 and 192, across the boundary: these change by a whole step of 64. It depends
# on the picture's own values, and appears after the defence as contours where the picture is smooth. The column
# *survives* above shows that a part of MI-UE's noise does this by accident.
#
# </details>
#
# **3.** Combine two defences, `bit_depth` and then MixUp. Do the recovered shares add up?
#
# <details><summary>Solution</summary>
#
# ```python
# noisy = published["miue"]
# coarse = defenses.bit_depth(noisy, bits=2)
# victim = mi.build(run.model, coarse, seed=1)
# recipe = dict(run.victim) | dict(run.brief)
# print(mi.fit(victim, coarse, test=test, seed=1, defense=defenses.MixUp(), **recipe).test_accuracy[-1])
# ```
#
# They cannot, if the victim with both is not to be better than a clean one: two bits alone recover most of it.
#
# </details>
