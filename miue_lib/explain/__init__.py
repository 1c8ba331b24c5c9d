"""Why noise works: what can be read from it, from the features of a victim, and from how a victim answers.

`separability`: what a linear model reads from the noise alone. `heads`: what other classifiers read from a victim's
features, instead of its own head. `attacks`: how far a picture must move to change a victim's answer, and how straight
the way there is.

`separability` and `heads` use scikit-learn, which is part of the book and not of the library's own needs.
"""

from .attacks import local_linearity, robust_accuracy
from .heads import proxy_a_distance, refit_head
from .separability import linear_separability

__all__ = ["linear_separability", "local_linearity", "proxy_a_distance", "refit_head", "robust_accuracy"]
