"""The table of metrics in deploy/README.md, which users' dashboards and alerts rest on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

README = Path(__file__).parents[1] / "deploy" / "README.md"
_ROW = re.compile(r"^\| `(statecast_\w+)` \| (\w+) \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)


class Documented(NamedTuple):
    """One line of the table."""

    name: str
    type: str
    of: str
    labels: frozenset[str]
    meaning: str


def documented() -> list[Documented]:
    """All lines, in their order."""
    return [
        Documented(name, type_, of, frozenset(re.findall(r"`(\w+)`", labels)), meaning)
        for name, type_, of, labels, meaning in _ROW.findall(README.read_text())
    ]
