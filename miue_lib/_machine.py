"""What machine this is."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor() -> str:
    """The CPU's model, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return model[1] if model else platform.processor() or platform.machine()
