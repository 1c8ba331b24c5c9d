"""Protect a folder of pictures: `protect` publishes them with noise and says what that buys, `plan` what it would do."""

from .protect import protect

__all__ = ["protect"]
