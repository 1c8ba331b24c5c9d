"""miue_lib: unlearnable examples, and the mutual information that explains them.

import miue_lib as mi

train, test = mi.load("fashion-mnist-mini")
noise = mi.craft("miue", train, **mi.profile("cpu").noise["miue"])
victim = mi.build("small_resnet", train, seed=1)
mi.fit(victim, train.with_(noise), test=test, seed=1)

mi.protect("photos", "protected")  # a folder class/picture.*
"""

from .cache import Cache
from .data import ImageSet, load
from .kernels.crop_flip import View
from .kernels.similarity import similarity_loss
from .mi import Estimate, Information, information, mutual_information
from .models import MODELS, Classifier, build, load_model, save_model
from .noise import METHODS, craft
from .perturbation import Perturbation
from .photos import protect
from .profiles import PROFILES, Profile, profile
from .train import History, accuracy, features, fit
from .visibility import Visibility, visibility

__version__ = "0.1.0"
__all__ = [
    "METHODS",
    "MODELS",
    "PROFILES",
    "Cache",
    "Classifier",
    "Estimate",
    "History",
    "ImageSet",
    "Information",
    "Perturbation",
    "Profile",
    "View",
    "Visibility",
    "accuracy",
    "build",
    "craft",
    "features",
    "fit",
    "information",
    "load",
    "load_model",
    "mutual_information",
    "profile",
    "protect",
    "save_model",
    "similarity_loss",
    "visibility",
]
