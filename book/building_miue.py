# %% [markdown]
# # Building MI-UE

# %% [markdown] tags=["badge"]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/book/building_miue.ipynb)

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
needed = ["safetensors>=0.5", "pillow>=11", "matplotlib>=3.9", "ipywidgets>=8.1", "scikit-learn>=1.5"]
if missing := [requirement for requirement in needed if not installed(requirement.split(">=")[0])]:
    pip_install(*missing)

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
    print(f"torch {torch.__version__} was left as it is, but this book is tested with 2.11 and newer.")
if not torch.cuda.is_available():
    print("No GPU: this runs at its small size. For a GPU: Runtime → Change runtime type → T4 GPU, then Run all.")

# %% tags=["parameters"]
profile = "cpu"  # "gpu": the paper's size, for a machine with a GPU
seed = 0

# %% [markdown]
# ## What is a poisoned picture?
#
# A picture $x$ and its noise $\delta$, no larger than the budget:
#
# $$x' = x + \delta(x), \qquad \lVert\delta\rVert_\infty \le \varepsilon = 8/255.$$

# %% tags=["cover"]
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

random = np.random.default_rng(seed)
figure, axes = plt.subplots(1, 2, figsize=(6, 2.5))
for axis, scale in zip(axes, (1, 8), strict=True):
    axis.imshow(scale * random.normal(size=(16, 16)), cmap="gray")
    axis.set(title=f"scale {scale}", xticks=[], yticks=[])
display(figure, metadata={"image/png": {"alt": "Two grids of noise."}})
plt.close(figure)

# %% [markdown]
# ## What does more noise look like?

# %%
import base64
import io

import ipywidgets


def picture(level):
    """A picture as HTML: unlike ipywidgets.Image, it says what it shows to those who cannot see it."""
    file = io.BytesIO()
    plt.imsave(file, random.uniform(0, 1, size=(32, 32)) * level, cmap="gray", vmin=0, vmax=1, format="png")
    data = base64.b64encode(file.getvalue()).decode()
    return ipywidgets.HTML(f'<img src="data:image/png;base64,{data}" alt="Noise of level {level:.1f}" width="200">')


levels = np.linspace(0.1, 1, 5)
stack = ipywidgets.Stack([picture(level) for level in levels], selected_index=0)
slider = ipywidgets.IntSlider(value=0, min=0, max=len(levels) - 1, description="level")
ipywidgets.jslink((slider, "value"), (stack, "selected_index"))
ipywidgets.VBox([slider, stack])
