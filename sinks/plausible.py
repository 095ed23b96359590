"""What an entry's id tells of who wrote it: the reader's ids have one shape, and follow what it has published.

Whoever may write to a stream can write what looks like an entry of the reader: Redis' access rules keep others out.
This keeps out what nobody's mistake may do, which is to move a checkpoint to a place that the source never reaches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sinks.batch import Entry
from transforms.errors import MalformedEntry
from transforms.position import LSN, Position

AHEAD_BYTES: Final = 1 << 40
"""How far a commit may lie behind what is stored as published: no reader leaves so much log without a word of it."""
_ID: Final = rb"[1-9][0-9]*+-[1-9][0-9]{6,17}+"
"""`<commit_lsn>-<n * 1000000 + slot>`, n from 1 on; a checkpoint's ordinal is a bigint."""
_IDS = re.compile(rb"(?:%b )*+" % _ID)


def refuse_impossible(entries: Sequence[Entry], published: LSN) -> None:
    """Raise MalformedEntry for an entry whose id no reader gives when this is published."""
    if not entries:
        return
    ids = [entry_id for entry_id, _ in entries]
    if not _IDS.fullmatch(b" ".join([*ids, b""])):
        other = next(entry_id for entry_id in ids if not re.fullmatch(_ID, entry_id))
        raise MalformedEntry(f"entry {other.decode()} has an id that is not of wire format 1")
    last = Position.parse(ids[-1].decode())  # ids rise
    if last.commit_lsn - published > AHEAD_BYTES:
        raise MalformedEntry(
            f"entry {last} is of the source's log at {last.commit_lsn}, and the reader has published up to {published}"
        )
