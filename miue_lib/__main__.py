"""`python -m miue_lib`: see `cli`."""

import io
import sys

from .cli import main

for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a terminal without ε is no reason to fail
sys.exit(main())
