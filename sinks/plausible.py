"""What an entry's id tells of who wrote it: the reader's ids have one shape, and follow what it has published.

Whoever may write to a stream can write what looks like an entry of the reader: Redis' access rules keep others out.
This keeps out what nobody's mistake may do, which is to move a checkpoint to a place that the source never reaches.
"""

from __future__ import annotations

from typing import Final

from sinks.entries import Entries
from transforms.errors import MalformedEntry
from transforms.position import LSN, Position

AHEAD_BYTES: Final = 1 << 40
"""How far a commit may lie behind what is stored as published: no reader leaves so much log without a word of it."""


def refuse_impossible(entries: Entries, published: LSN) -> None:
    """Raise MalformedEntry for an entry whose id no reader gives when this is published."""
    if not entries:
        return
    if (odd := entries.odd_id()) is not None:
        raise MalformedEntry(f"entry {odd.decode()} has an id that is not of wire format 1")
    last = Position.parse(entries[-1][0].decode())  # ids rise
    if last.commit_lsn - published > AHEAD_BYTES:
        raise MalformedEntry(
            f"entry {last} is of the source's log at {last.commit_lsn}, and the reader has published up to {published}"
        )
