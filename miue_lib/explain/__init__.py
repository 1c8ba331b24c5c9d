"""Why noise works: what can be read from it, from the features of a victim, and from how a victim answers.

`separability`: what a linear model reads from the noise alone. `survival`: what a defence leaves of it. `heads`: what
other classifiers read from a victim's features, instead of its own head. `attacks`: how far a picture must move to
change a victim's answer, and how straight the way there is. `reading`: all of these and mutual information, of one
victim. `correlation`: how well what was read ranks methods.

`separability` and `heads` use scikit-learn, which is part of the book and not of the library's own needs.
"""

from .attacks import local_linearity, robust_accuracy
from .correlation import Correlation, Place, agreement, race, rank_correlation
from .heads import proxy_a_distance, refit_head
from .reading import along_training, measure, sliced_mi
from .separability import linear_separability
from .survival import survival

__all__ = [
    "Correlation",
    "Place",
    "agreement",
    "along_training",
    "linear_separability",
    "local_linearity",
    "measure",
    "proxy_a_distance",
    "race",
    "rank_correlation",
    "refit_head",
    "robust_accuracy",
    "sliced_mi",
    "survival",
]
