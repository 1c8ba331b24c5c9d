"""Protect a folder of pictures: `protect` publishes them with noise and measures what that buys; `plan` only looks."""

from .plan import plan
from .protect import protect

__all__ = ["plan", "protect"]
