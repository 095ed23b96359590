"""What the items of a batch append: each is an XADD."""

from __future__ import annotations

from cdc.append import split
from cdc.batch import StreamBatch

Entry = tuple[bytes, list[bytes]]
"""Id, and words (field, value, ...)."""


def entries(batch: StreamBatch) -> list[Entry]:
    """Read the items as Redis does; how many words each has must be true."""
    found: list[Entry] = []
    for item in batch.items:
        command, _key, entry_id, *words = split(item)
        assert command == b"XADD"
        assert item.startswith(b"*%d\r\n" % (len(words) + 3))
        assert len(words) % 2 == 0
        found.append((entry_id, words))
    return found
