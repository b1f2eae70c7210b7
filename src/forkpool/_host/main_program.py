"""Say how the program that runs here can be run once more, for `preload=("__main__",)`.

Runs in: host; the constructor asks whether there is a way, the supervisor thread which one. Reads only.
Tests: tests/process/test_preload_main.py
"""

from __future__ import annotations

import os
import sys
from typing import Any


def main_program() -> dict[str, str] | None:
    """Return {"module": name} of `python -m`, {"folder": path} of a folder or zip file, {"file": path}; None: no file.

    A program from `-c`, standard input, a REPL or a notebook has none.
    """
    main: Any = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    path = getattr(main, "__file__", None)
    if isinstance(name, str) and name != "__main__":
        return {"module": name}
    if not isinstance(path, str):
        return None
    if name == "__main__":
        return {"folder": os.path.dirname(os.path.abspath(path))}
    return {"file": os.path.abspath(path)} if os.path.isfile(path) else None
