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
photos = ""  # a folder of yours, photos/CLASS/picture.jpg …; empty: one that the next section makes
upload = False  # on Colab, True asks for a zip file of such a folder

# %% [markdown]
# ## What is wanted, and what can noise give?
#
# A *class* is whatever a trainer might want to tell apart: a person, a product, a style. The picture $x$ of class $y$
# is published as $x' = x + \delta$, where
#
# $$\lVert\delta\rVert_\infty = \max_i |\delta_i| \le \varepsilon = \frac{8}{255},$$
#
# so that no colour value moves by more than 8 of 255 levels, and $\delta$ is chosen such that a network trained on
# pairs $(x', y)$ learns to read the noise instead of the picture. Shown clean pictures later, it finds no noise to
# read.
#
# That is all it can do. It does not hide a picture from people, nor from networks that exist already, nor does it call
# back what has been published before. And who has clean pictures of the same classes can learn from those.
#
# ## Where are your pictures?
#
# In a folder with one folder for each class. To use your own on Colab, either set `upload = True` above and choose a
# zip file of such a folder, or mount your Drive and name a folder there:
#
# ```python
# from google.colab import drive
# drive.mount("/content/drive")
# photos = "/content/drive/MyDrive/photos"
# ```
#
# Without one, the next cell makes a folder of the pictures that the library carries, and takes care that it is as messy
# as a real one: several sizes and formats, a picture that lies on its side, as telephones write them, a file that was
# never copied to its end, and one that is no picture at all.

# %%
import html
import shutil
from pathlib import Path

import numpy as np
import torch
from IPython.display import HTML
from PIL import Image

import miue_lib as mi
from miue_lib import plots
from miue_lib.photos import plan

EACH = 100  # pictures of a class


def make_folder(folder, classes=10):
    clothes, _ = mi.load("fashion-mnist-mini", device="cpu")
    for label in range(classes):
        place = folder / clothes.classes[label].replace("/", " or ")
        place.mkdir(parents=True)
        for n, picture in enumerate(clothes.images[clothes.labels == label][:EACH, 0].numpy()):
            side = (32, 48, 64, 96)[n % 4]
            image = Image.fromarray(picture).resize((side * 5 // 4, side), Image.Resampling.BICUBIC)
            suffix, options = ((".jpg", {"quality": 95}), (".png", {}), (".webp", {"quality": 95}))[n % 3]
            image.save(place / f"picture {n:03d}{suffix}", **options)
    turned = sorted(place.glob("*.jpg"))[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees to the right"
    Image.open(turned).transpose(Image.Transpose.ROTATE_90).save(turned, quality=95, exif=exif)
    whole = (place / "picture 000.jpg").read_bytes()
    (place / "half copied.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "notes.txt").write_text("not a picture")


if upload:
    from google.colab import files

    shutil.unpack_archive(next(iter(files.upload())), "uploaded")
    photos = "uploaded"
source = Path(photos or "photos")
if not photos:
    shutil.rmtree(source, ignore_errors=True)
    make_folder(source)
count = sum(path.is_file() for path in source.rglob("*"))
print(f"{count:,} files in {sum(path.is_dir() for path in source.iterdir())} folders")

# %% [markdown]
# ## What is going to happen, and how long does it take?
#
# `plan` looks without writing anything (on the command line, `--dry-run`). It opens some files, protects a handful in
# memory, crafts for a moment, and scales up what it measured.

# %%
options = {"seed": seed, "profile": profile, "seeds": 3}  # three networks for each line of the verdict
planned = plan(source, "protected", **options)
pixels = planned["pixels"] / 1e6
print(f"{planned['pictures']:,} pictures of {len(planned['classes'])} classes, {pixels:.1f} megapixels")
for left in (*planned["left_out"], *planned["unreadable"]):
    print(f"left out: {left['source']} ({left['reason']})")
for stage, seconds in planned["seconds"].items():
    print(f"{stage:12s} about {seconds:.0f} s")

# %% [markdown]
# ## How does noise survive being shrunk?
#
# A photograph has millions of pixels, and a network sees some thousands: a trainer shrinks its shorter side to, say,
# 32 and cuts out the middle. Shrinking takes averages. If $\delta$ were chosen for every pixel of the photograph
# alone, then of independent values, each $\pm\varepsilon$, an average over $k \times k$ pixels would keep one $k$-th.
# So the noise is crafted for what the network sees, the small square, and *spread*: enlarged to the photograph's own
# size. Here is the idea in plain PyTorch, for a grey picture of 256 × 256 pixels and a square of 32 × 32:

# %%
SIDE, LARGE = 32, 256
generator = torch.Generator().manual_seed(seed)
small = 8 * (2.0 * torch.randint(0, 2, (1, 1, SIDE, SIDE), generator=generator) - 1)
fine = 8 * (2.0 * torch.randint(0, 2, (1, 1, LARGE, LARGE), generator=generator) - 1)


def resized(values, side):
    return torch.nn.functional.interpolate(values, (side, side), mode="bicubic", antialias=True, align_corners=False)


def kept(noise):
    """What a network's square shows of noise on the large picture, in parts of its root mean square."""
    return float(resized(noise, SIDE).square().mean().sqrt() / noise.square().mean().sqrt())


spread_out = resized(small, LARGE).clamp(-8, 8)
print(f"independent for every pixel of the photograph: {kept(fine):.2f} of it is left; spread: {kept(spread_out):.2f}")
assert kept(fine) < 0.3 < 0.6 < kept(spread_out)

# %% [markdown]
# The library does the same at the edge of any picture and any shape: beyond the middle square the noise goes on by
# reflection, and the noise is first *sharpened* by what shrinking will take from it. Values are rounded to whole
# levels, and none leaves the budget.

# %%
from miue_lib.photos.spread import spread, square

grey = np.full((LARGE, LARGE, 3), 128, np.uint8)
levels = np.repeat(small[0].numpy().astype(np.int8), 3, axis=0)  # (3, 32, 32)
published = spread(grey, levels, 8)
seen = square(published, SIDE).astype(int) - 128
assert abs(published.astype(int) - 128).max() <= 8
by_library = float(np.sqrt(np.mean(seen**2.0)) / np.sqrt(np.mean((published - 128.0) ** 2)))
agree = np.corrcoef(seen.ravel(), levels.transpose(1, 2, 0).ravel())[0, 1]
print(f"spread by the library: {by_library:.2f} of it is left, and it agrees with what was crafted: r = {agree:.3f}")
assert agree > 0.95

# %% [markdown]
# This is noise at its worst: independent from one square pixel to the next. MI-UE's is coarser, and comes through
# with a correlation of 0.98 and more.
#
# ## Run it
#
# One call, or one command: `python -m miue_lib protect PHOTOS --out PROTECTED`. It reads every picture, crafts noise
# for all of them together, publishes each as PNG with the same name, without EXIF but turned as EXIF says, reads back
# what it wrote, and trains networks on the result. It may be stopped at any moment, by pulling the plug too; the same
# command goes on.

# %%
told = []
shutil.rmtree("protected", ignore_errors=True)
manifest = mi.protect(source, "protected", progress=told.append, **options)
print(*told[:: max(1, len(told) // 8)], sep="\n")

# %% [markdown]
# ## Do they look the same?

# %% tags=["hide-input"]
examples = {entry["class"]: entry for entry in reversed(manifest["pictures"])}
shown = list(examples.values())[:8]


def as_tensor(path, side=64):
    return torch.from_numpy(np.array(Image.open(path).convert("RGB").resize((side, side)))).permute(2, 0, 1)


before = torch.stack([as_tensor(source / entry["source"]) for entry in shown])
after = torch.stack([as_tensor(Path("protected") / entry["target"]) for entry in shown])
delta = (after.float() - before.float()) / 255
figure = plots.pictures(
    {"yours": before, "noise": delta, "published": after},
    [entry["class"][:10] for entry in shown],
    limits={"noise": float(delta.abs().max())},
)
plots.show(figure, "Pictures before, the noise that was added, and as published: before and after look alike")

# %% [markdown]
# Trust nothing that says it keeps a budget: read the files back, with nothing of the library.

# %%
largest = 0
for entry in manifest["pictures"]:
    if entry["notes"]:
        continue  # those that were turned, say, have to be turned here too
    with Image.open(source / entry["source"]) as a, Image.open(Path("protected") / entry["target"]) as b:
        difference = np.asarray(b).astype(int) - np.asarray(a.convert(b.mode)).astype(int)
    largest = max(largest, int(abs(difference).max()))
summary = manifest["summary"]
print(f"{summary['pictures']:,} published, {summary['left_out']} left out")
print(f"the largest change that was read back: {largest} of 255 levels")
print(f"PSNR {summary['psnr']:.1f} dB, SSIM {summary['ssim']:.3f}")
for left in manifest["left_out"]:
    print(f"left out: {left['source']} ({left['reason']})")
assert largest <= 8

# %% [markdown]
# ## What does it buy?
#
# The question that counts. For each of several seeds, a part of the clean pictures is held out, networks are trained
# on the rest: as they are, as published, and as published after something that a trainer might do to them, by
# accident or on purpose. All are tested on the clean pictures that were held out, treated alike.

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
# How a sentence is decided is written in `help(miue_lib.photos.verdict.outcomes)`: a row is called *protected* if its
# networks get clearly less right than those of the unprotected pictures, over the seeds, and lose at least half of what
# these know beyond guessing. With three seeds, as here, not much is clear; the command trains six networks a row.
#
# The folder that the book makes is a hard case. A thousand small grey pictures leave the noise one channel to sit in,
# and the clothes are told apart easily: the noise takes some of what networks get right, not most, and no treatment
# gives it back. Photographs have colour. For 1,000 of CIFAR-10 (JPEG copy, 100 of each class, run once outside this
# chapter by the command with its defaults) six networks a row got 41 % right from the unprotected pictures and 23 %
# from the protected ones; after JPEG of quality 90 to 30 it was 23 to 25 %, and shrunk and enlarged 24 %. But turned
# to grey, it was 38 %: there most of the noise is in the colours, and who takes those takes the protection with them.
#
# So measure, on your own pictures, and believe the row that speaks of what your trainer will do.
#
# ## The report
#
# All of this is also in one file that opens by a double click, `protected/report.html`. Here it is:

# %% tags=["hide-input"]
page = Path("protected/report.html").read_text(encoding="utf-8")
HTML(
    f'<div><iframe title="The report on the protected pictures" srcdoc="{html.escape(page)}" sandbox '
    'style="width: 100%; height: 40rem; border: 1px solid #999"></iframe></div>'
)

# %% [markdown]
# ## Take them home

# %%
archive = shutil.make_archive("protected", "zip", "protected")
print(f"{Path(archive).name}: {Path(archive).stat().st_size / 1e6:.1f} MB")
if "google.colab" in sys.modules:
    from google.colab import files

    files.download(archive)

# %% [markdown]
# ## What to remember
#
# - Noise for photographs is crafted for what a network will see of them, a small square, and spread to their own size.
# - What a protection buys can be measured before anything is published, on the very pictures: train on them, and look.
# - A verdict has seeds and intervals. Few pictures can be protected, but not shown to be.
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
