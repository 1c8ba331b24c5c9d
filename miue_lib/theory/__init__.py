"""What can be computed or proved about mutual information without estimating it.

`gaussian`: closed forms. `moments`: means and covariances of classes. `bounds`: what those covariances leave room for,
after Zhu et al. (2026) and sharper. `accuracy`: what a classifier's accuracy says about I(Z; Y), and the reverse.
`mixture`: mutual information of Gaussian mixtures by Monte Carlo, the referee of the bounds. `normality`: how Gaussian
the features of a class are.

Every result is in nats and float64, on the device of its argument: a tensor of the argument's shape where a function
works element by element, else a scalar tensor, unless its docstring says otherwise. Numbers may be given instead of
tensors. Whatever cannot be used raises a `ValueError` that names the argument.
"""

from .accuracy import accuracy_range, information_range
from .bounds import (
    MIBound,
    cosine_bound,
    covariance_reduction_bound,
    entropy_continuity,
    least_mean_cosine,
    mi_bound,
    moments_bound,
)
from .gaussian import (
    gaussian_channel_mi,
    gaussian_entropy,
    gaussian_mi,
    gaussian_slices_mi,
    gaussian_vector_mi,
    sliced_gaussian_mi,
    uniform_channel_mi,
)
from .mixture import MixtureInformation, MonteCarlo, ResolvedInformation, mixture_mi, resolved_information
from .moments import ClassMoments, class_moments, log_dets, log_dets_at, mean_cosines
from .normality import Gaussianity, gaussianity

__all__ = [
    "ClassMoments",
    "Gaussianity",
    "MIBound",
    "MixtureInformation",
    "MonteCarlo",
    "ResolvedInformation",
    "accuracy_range",
    "class_moments",
    "cosine_bound",
    "covariance_reduction_bound",
    "entropy_continuity",
    "gaussian_channel_mi",
    "gaussian_entropy",
    "gaussian_mi",
    "gaussian_slices_mi",
    "gaussian_vector_mi",
    "gaussianity",
    "information_range",
    "least_mean_cosine",
    "log_dets",
    "log_dets_at",
    "mean_cosines",
    "mi_bound",
    "mixture_mi",
    "moments_bound",
    "resolved_information",
    "sliced_gaussian_mi",
    "uniform_channel_mi",
]
