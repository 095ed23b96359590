"""The compiled functions, where there are any: C for what is done with every row.

They are built with the package where there is a C compiler, and are never needed: everything that they do is also there
in Python, which runs where they were not built, and where the environment has STATECAST_PURE_PYTHON=1. They answer None
for whatever is not common; the Python code takes that, and alone says what is an error.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

WANTED = os.environ.get("STATECAST_PURE_PYTHON", "") in ("", "0")


INTERFACES = {"transforms._rows": 4, "sinks._entries": 2}
"""Of each compiled module: what it has, and with which arguments. One built from other sources has another number."""


def load(name: str) -> Any:
    """The compiled module of this name, or None: it was not built, or from other sources, or is not wanted."""
    if not WANTED:
        return None
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError:
        return None
    return module if getattr(module, "INTERFACE", None) == INTERFACES[name] else None


def version(name: str) -> str:
    """What `--version` prints; `name`: the compiled module of the command's hot path."""
    from importlib import metadata  # no start of a command shall pay for this

    return f"statecast {metadata.version('statecast')} ({'compiled' if load(name) else 'pure Python'})"
