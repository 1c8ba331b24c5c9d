# %% [markdown]
# # Protect your own pictures
#
# The other chapters ask why unlearnable examples work. This one takes a folder of pictures, yours if you like, makes
# unlearnable examples of them, and measures what that buys. Afterwards you can
#
# - protect a folder of pictures of any size, and check the result with a program of your own;
# - say what happens to noise on the way to a network, and why noise for large pictures is coarse;
# - read the verdict that comes with it, and tell others honestly what such a protection is worth.
#
# Nothing is needed but pictures in folders. Why the noise is as it is stands in [Building MI-UE](building_miue.ipynb);
# what can be done against it, in [Breaking it](breaking_it.ipynb).

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/protect_your_pictures.ipynb)

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
profile = "cpu"  # "gpu": the paper's settings, for a GPU
seed = 0
photos = ""  # a folder of yours, with photos/CLASS/picture.jpg …; empty: an example that is made below
out = ""  # where the protected pictures go; empty: "protected", or "example protected" for the example
drive = False  # on Colab, True mounts your Drive before anything is read: "/content/drive/MyDrive/…"
upload = False  # on Colab, True asks for a zip file of a folder like photos

# %% [markdown]
# ## What is wanted, and what can noise give?
#
# A *class* is whatever a trainer might want to tell apart: a person, a product, a style. The picture $x$ of class $y$
# is published as $x' = x + \delta$, where
#
# $$\lVert\delta\rVert_\infty = \max_i |\delta_i| \le \varepsilon = \frac{8}{255},$$
#
# so that no colour value changes by more than 8 of 255 levels, and $\delta$ is chosen such that a network trained on
# pairs $(x', y)$ learns to read the noise instead of the picture. Shown clean pictures later, it finds no noise to
# read.
#
# That is all it can do. It does not hide a picture from people, nor from networks that exist already, nor does it call
# back what has been published before. Who has clean pictures of the same classes can learn from those. And a trainer
# who suspects noise can often remove it, by turning pictures to grey, say. Expect it to slow down the careless, not to
# stop the determined.
#
# ## Where are your pictures?
#
# In a folder with one folder for each class, at least two of them, better with hundreds of pictures than with dozens.
# Noise hides what tells a class from the others: with pictures of a single person, put pictures of other people beside
# them, in folders of their own. If you then publish that one class only, expect less than the verdict says: in
# [Evaluating MI-UE](evaluating_miue.ipynb) a class that was protected alone became harder to learn and the others did
# not, and with a tenth of all pictures left clean most of the effect was gone.
#
# On your own machine, name the folder above. On Colab, set `upload = True` (some hundred megabytes at most; whether
# the zip file holds `photos/anna/1.jpg` or `anna/1.jpg` does not matter), or `drive = True` and name folders on your
# Drive in `photos` and `out`. The disk of Colab is lost with the session; with `out` on your Drive, a run that broke
# off goes on when the cells are run again. Either way your pictures are copied to Google's machines; at home, they
# are not.
#
# Without a folder, the next cell makes one of the pictures that the library carries, and takes care that it is as messy
# as a real one: several sizes and formats, a picture that lies on its side, as telephones write them, a file that was
# never copied to its end, and one that is no picture at all.

# %%
import html
import shutil
from pathlib import Path

import numpy as np
import torch
from IPython.display import HTML
from PIL import Image, ImageOps

import miue_lib as mi
from miue_lib import plots
from miue_lib.photos import plan

EACH = 100  # pictures of a class


def make_example(folder, classes=10):
    clothes, _ = mi.load("fashion-mnist-mini", device="cpu")
    for label in range(classes):
        place = folder / clothes.classes[label].replace("/", " or ")
        place.mkdir(parents=True)
        for n, picture in enumerate(clothes.images[clothes.labels == label][:EACH, 0].numpy()):
            side = (32, 48, 64, 96)[n % 4]
            image = Image.fromarray(picture).resize((side * 5 // 4, side), Image.Resampling.BICUBIC)
            suffix, options = ((".jpg", {"quality": 95}), (".png", {}), (".webp", {"quality": 95}))[n % 3]
            image.save(place / f"picture {n:03d}{suffix}", **options)
    turned = place / "picture 000.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees to the right"
    Image.open(turned).transpose(Image.Transpose.ROTATE_90).save(turned, quality=95, exif=exif)
    whole = (place / "picture 003.jpg").read_bytes()
    (place / "half copied.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "notes.txt").write_text("not a picture")


if drive:
    from google.colab import drive as colab_drive

    colab_drive.mount("/content/drive")
if upload:
    from google.colab import files

    shutil.rmtree("uploaded", ignore_errors=True)
    shutil.unpack_archive(next(iter(files.upload())), "uploaded")
    shutil.rmtree("uploaded/__MACOSX", ignore_errors=True)
    inside = list(Path("uploaded").iterdir())
    photos = inside[0] if len(inside) == 1 else "uploaded"
if photos:
    source, target = Path(photos), Path(out or "protected")
else:
    source, target = Path("example photos"), Path(out or "example protected")
    shutil.rmtree(source, ignore_errors=True)
    make_example(source)
print(f"{source}: {', '.join(sorted(path.name for path in source.iterdir() if path.is_dir()))}")

# %% [markdown]
# ## What is going to happen, and how long does it take?
#
# `plan` looks without writing anything (on the command line, `--dry-run`). It opens some files, protects a handful in
# memory, crafts for a moment, and scales up what it measured. Crafting and training take as long for large pictures as
# for small ones, and longer for more of them; reading and writing go by the megapixel. Photographs grow: PNG loses
# nothing, and is often several times as large as the JPEG (`webp=True` saves a part).

# %%
# For each line of the verdict so many networks; six, as the command has it, tell more than three, and take longer.
options = {"seed": seed, "profile": profile, "seeds": 6 if photos else 3}
planned = plan(source, target, **options)
megapixels, megabytes = planned["pixels"] / 1e6, planned["bytes"] / 1e6
print(f"{planned['pictures']:,} pictures, {megapixels:.1f} megapixels; they will take about {megabytes:.1f} MB")
for left in (*planned["left_out"], *planned["unreadable"]):
    print(f"left out: {left['source']} ({left['reason']})")
for stage, seconds in planned["seconds"].items():
    print(f"{stage:12s} " + ("not known beforehand" if seconds is None else f"about {seconds:.0f} s"))

# %% [markdown]
# ## Run it
#
# One call, or one command: `python -m miue_lib protect PHOTOS --out PROTECTED`. It reads every picture, crafts noise
# for all of them together, publishes each as PNG with the same name, upright and without EXIF, reads back what it
# wrote, and trains networks on the result. It may be stopped at any moment, by pulling the plug too: the same call
# goes on, to the same bytes on the CPU of one machine. Called again after the end, it looks whether everything is
# still there, and writes nothing. (Here the example's output is removed first, so that the page shows a whole run.)

# %%
if not photos:
    shutil.rmtree(target, ignore_errors=True)
told = []
manifest = mi.protect(source, target, progress=told.append, **options)
print(*told[:: max(1, len(told) // 8)], sep="\n")

# %% [markdown]
# ## How different do they look?

# %% tags=["hide-input"]
examples = {entry["class"]: entry for entry in reversed(manifest["pictures"])}
shown = list(examples.values())[:8]


def upright(path):
    with Image.open(path) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def as_tensor(path, side=64):
    return torch.from_numpy(np.array(ImageOps.fit(upright(path), (side, side)))).permute(2, 0, 1)


before = torch.stack([as_tensor(source / entry["source"]) for entry in shown])
after = torch.stack([as_tensor(target / entry["target"]) for entry in shown])
delta = (after.float() - before.float()) / 255
stretched = f"noise × {0.5 / float(delta.abs().max()):.0f}"
figure = plots.pictures(
    {"before": before, stretched: delta, "published": after},
    [entry["class"][:10] for entry in shown],
    limits={stretched: float(delta.abs().max())},
)
plots.show(figure, "Pictures before, the noise that was added, stretched, and as published: nearly alike")

# %% [markdown]
# Nearly alike: dark, even areas have become slightly uneven. On a photograph 3,000 pixels high the noise is made of
# soft patches of about a hundred pixels; look at skies and plain walls, at full size. If you see them, try
# `budget=4`: less visible, and less of a protection.
#
# Trust nothing that says it keeps a budget: read the files back, with nothing of the library. PSNR tells how faint the
# noise is (30 dB can be seen by those who look, 40 dB hardly), SSIM how alike small structures are (1: the same).

# %%
largest, compared = 0, 0
for entry in manifest["pictures"]:
    a, b = (np.asarray(upright(path), dtype=int) for path in (source / entry["source"], target / entry["target"]))
    if {"CMYK", "16"} & set(" ".join(entry["notes"]).split()):
        continue  # Pillow alone converts these otherwise
    largest, compared = max(largest, abs(b - a).max()), compared + 1
summary = manifest["summary"]
print(f"{summary['pictures']:,} published, {summary['left_out']} left out")
print(f"read back {compared:,}: the largest change is {largest} of 255 levels")
print(f"PSNR {summary['psnr']:.1f} dB, SSIM {summary['ssim']:.3f}")
for left in manifest["left_out"]:
    print(f"left out: {left['source']} ({left['reason']})")
assert compared > 0 and largest <= 8

# %% [markdown]
# ## What does it buy?
#
# The question that counts, so it is measured on these very pictures. Again and again (each time is a *seed*) a part
# of the unprotected pictures is held out, and networks are trained on the rest: as they are, as published, and as
# published after something that a trainer might do to them, by accident or on purpose. All are asked what the
# held-out pictures show, treated in the same way; *accuracy* is the share that they get right, and *sd* how far the
# seeds scatter.

# %%
verdict = manifest["verdict"]
plots.table(
    verdict["rows"],
    {
        "a network trained on": lambda row: row["title"],
        "accuracy, mean ± sd": lambda row: plots.mean_sd(row["accuracy"]),
        "each seed": lambda row: ", ".join(f"{a:.3f}" for a in row["accuracy"]),
    },
)

# %%
for sentence in verdict["sentences"]:
    print("-", sentence)
if not photos and profile == "cpu":
    clean, *protected = (np.mean(row["accuracy"]) for row in verdict["rows"])
    assert clean - np.mean(protected) > 0.06

# %% [markdown]
# *Protected* means that networks get clearly less right than those of the unprotected pictures, over the seeds, and
# lose at least half of what these know beyond guessing; not that they learn nothing.
# (`help(miue_lib.photos.verdict.outcomes)` has the rule.) A treatment costs a trainer something on clean pictures
# too, and that part is counted here as the noise's.
#
# The example is a hard case. Grey pictures leave the noise one channel to sit in, and clothes are told apart easily:
# the noise takes some of what networks get right, not most, and about as much in every row. Three seeds are too few
# to say which rows are better: where one is called *in part* and another *in part at most*, that is chance.
#
# Photographs have colour. For 1,000 of CIFAR-10 (JPEG copy, 32 × 32 pixels, 100 of each class, run once outside this
# chapter by the command with its defaults) six networks a row got 41 % right from the unprotected pictures and 23 %
# from the protected ones; after JPEG of quality 90 to 30 it was 23 to 25 %, and shrunk and enlarged 24 %. Turned to
# grey, it was 38 %: there most of the noise is in the colours, and who takes those takes the protection with them. In
# short: for small colour pictures JPEG and shrinking do not undo it; grey does, and so does training that is made for
# it.
#
# You do not know what a trainer will do. Believe the worst row.
#
# | the verdict says | what to do |
# |---|---|
# | too few pictures | add pictures; with fewer than 30 to test on nothing is said, and hundreds are better |
# | even from the unprotected ones, … | at this size the classes are too alike, or too few: nothing can be said |
# | may or may not, in part at most | more seeds (`seeds=10`), or more pictures |
# | not protected | do not rely on it: another method, a larger budget, or do not publish |
#
# ## How does noise survive being shrunk?
#
# You can skip this on a first reading. A photograph has millions of pixels. A trainer shrinks its shorter side, here
# to 32, and cuts out the middle: a *square*. Shrinking takes averages. If $\delta$ were chosen for every pixel of the
# photograph alone, then of independent values, each $\pm\varepsilon$, an average over $k \times k$ pixels would keep
# about one $k$-th. So the noise is crafted for the square, and *spread*: enlarged to the photograph's own size. Here
# is the idea in plain PyTorch, for a grey picture of 256 × 256 pixels and a square of 32 × 32, so with $k = 8$:

# %%
SIDE, LARGE = 32, 256
generator = torch.Generator().manual_seed(seed)
small = 8 * (2.0 * torch.randint(0, 2, (1, 1, SIDE, SIDE), generator=generator) - 1)
fine = 8 * (2.0 * torch.randint(0, 2, (1, 1, LARGE, LARGE), generator=generator) - 1)


def resized(values, side):
    return torch.nn.functional.interpolate(values, (side, side), mode="bicubic", antialias=True, align_corners=False)


def size_of(noise):
    return float(noise.square().mean().sqrt())


def agrees(noise):
    return np.corrcoef(noise.ravel(), small.ravel())[0, 1]


by_hand = resized(resized(small, LARGE).clamp(-8, 8), SIDE)
print(f"independent for every pixel of the photograph: {size_of(resized(fine, SIDE)):.1f} of 8 levels are left")
print(f"spread: {size_of(by_hand):.1f} of 8, which agree with what was crafted: r = {agrees(by_hand):.3f}")
assert size_of(resized(fine, SIDE)) < 2 < 4 < size_of(by_hand)

# %% [markdown]
# The library does the same for any shape, from strip to strip: beyond the middle square the noise goes on by
# reflection, values are rounded to whole levels, and none leaves the budget. And it first *sharpens* the noise by
# what shrinking will take from it.

# %%
from miue_lib.photos.spread import spread, square

grey = np.full((LARGE, LARGE, 3), 128, np.uint8)
levels = np.repeat(small[0].numpy().astype(np.int8), 3, axis=0)  # (3, 32, 32)
published = spread(grey, levels, 8)
seen = torch.from_numpy(square(published, SIDE).astype(float)[:, :, 0] - 128)
assert abs(published.astype(int) - 128).max() <= 8
print(f"spread by the library: {size_of(seen):.1f} of 8 levels, r = {agrees(seen):.3f}")
assert agrees(seen) > agrees(by_hand) and size_of(seen) > size_of(by_hand)

# %% [markdown]
# This is noise at its worst, independent from one pixel of the square to the next. MI-UE's is smoother, and comes
# through with a correlation of 0.98 to 0.99 and 0.93 of its size (docstring of `miue_lib.photos.spread`).
#
# Trainers also look at 224 pixels and more, or start from a network that knows much already. Crafting for those
# (`size=224`) wants a GPU, and what comes of it is not recorded here: no GPU result recorded yet.
#
# ## What do I publish?
#
# Only the class folders inside the output. Not `report.html`, nor this notebook with its output: both show
# unprotected pictures. Not `manifest.json`: it says how the noise was made, and what was left out. Not the originals,
# nowhere, not even as thumbnails. JPEG of high quality is fine for the web, as far as the verdict says so, but then
# the limit of 8 levels no longer holds exactly.
#
# The report opens by a double click. Here it is:

# %% tags=["hide-input"]
page = (target / "report.html").read_text(encoding="utf-8")
HTML(
    f'<div><iframe title="The report on the protected pictures" srcdoc="{html.escape(page)}" sandbox '
    'style="width: 100%; height: 40rem; border: 1px solid #999"></iframe></div>'
)

# %%
for name in ("to publish", "keep private"):
    shutil.rmtree(name, ignore_errors=True)
    Path(name).mkdir()
for path in target.iterdir():
    if path.is_dir():
        shutil.copytree(path, Path("to publish") / path.name)
    else:
        shutil.copy(path, "keep private")
for name in ("to publish", "keep private"):
    archive = Path(shutil.make_archive(name, "zip", name))
    print(f"{archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
    if upload:  # what came through the browser goes back through it
        files.download(str(archive))

# %% [markdown]
# ## What to remember
#
# - Noise for photographs is crafted for what a network will see of them, a small square, and spread to their own size.
# - What a protection buys can be measured before anything is published, on the very pictures: train on them, and look.
# - A verdict has seeds and intervals. With few pictures noise can be added, but nobody can say whether it works: take
#   them for unprotected.
# - Believe the worst row, and publish the class folders only.
# - Protected is not safe: who knows what was done can undo it ([Breaking it](breaking_it.ipynb)), clean pictures of the
#   same classes teach what the protected ones do not, and what is published stays published.
#
# ## Exercises
#
# **1.** Protect the folder with `method="random"`: noise of the same budget, drawn and not crafted. What does the
# verdict say?
#
# <details><summary>Solution</summary>
#
# `mi.protect(source, "random", method="random", **options)`. Networks learn from it about what they learn from the
# unprotected pictures, so the rows are *not protected*, or cannot be told. That no colour moves by more than 8 levels
# says how visible a noise is, and nothing of what it does.
#
# </details>
#
# **2.** Why does a second run with another budget refuse to write into `protected`?
#
# <details><summary>Solution</summary>
#
# Half of the pictures would carry the one noise and half the other, and the manifest would be true of neither. An
# output belongs to one set of arguments and to one set of pictures, by their checksums; anything else needs a folder
# of its own.
#
# </details>
#
# **3.** You have 200 pictures of one person. What would you put beside them, and why does the noise need it?
#
# <details><summary>Solution</summary>
#
# Noise hides what tells a class from the others, so there have to be others: pictures of other people, as alike in
# setting as can be, in folders of their own. With a single class there is nothing to learn, and nothing to hide;
# `protect` refuses it. Publish the protected pictures of the person only: those that stood beside them have done
# their work.
#
# </details>
