"""Messages captured from real servers, so that the decoder is tested against what they send and not against us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("pgoutput.json")


class Golden(NamedTuple):
    """One captured message, without the header of its XLogData frame."""

    server: int
    """The major version of the server that sent it."""
    name: str
    """The step that made it and its kind: `customers: key change / update`."""
    data: bytes


def load() -> tuple[Golden, ...]:
    """All captured messages, in the order of the log of each server."""
    return tuple(
        Golden(int(entry["server"]), entry["name"], bytes.fromhex(entry["hex"]))
        for entry in json.loads(FILE.read_text(encoding="utf-8"))
    )
