"""The append script in Python: which entries the items of a batch come to."""

from __future__ import annotations

from cdc.append import split
from cdc.batch import StreamBatch

Entry = tuple[bytes, list[bytes]]
"""Id, and words (field, value, ...)."""


def entries(batch: StreamBatch) -> list[Entry]:
    """Read the items as the script does; the batch's own counts must agree."""
    found: list[Entry] = []
    words_in_all = 0
    ts = tx = b""
    for item in batch.items:
        code, *words = split(item)
        words_in_all += 1 + len(words)
        if code == b"t":
            ts, tx = words
            continue
        match code.lower():
            case b"u":
                entry_id, type_, key, state = words
                fields = [b"op", b"upsert", b"type", type_, b"key", key, b"state", state, b"ts", ts, b"tx", tx]
            case b"o":
                entry_id, type_, key, state, origin = words
                fields = [b"op", b"upsert", b"type", type_, b"key", key, b"state", state, b"ts", ts, b"tx", tx]
                fields += [b"origin", origin]
            case b"d":
                entry_id, type_, key = words
                fields = [b"op", b"delete", b"type", type_, b"key", key, b"ts", ts, b"tx", tx]
            case b"x":
                entry_id, size, *fields = words
                assert int(size) == len(fields)
            case _:
                raise AssertionError(f"no such item: {code!r}")
        found.append((entry_id, [*fields, b"end", b"1"] if code.isupper() else fields))
    assert words_in_all == batch.words
    assert len(found) == batch.count
    return found
