"""Where a batch ends: at the boundaries of source transactions, so that a replica never shows half of one.

Exceptions are a transaction that is larger than what is read at once, which is applied in parts, and rows that were
found by a query: a snapshot's chunk is nobody's transaction, and who waits for its end reads it again and again.
"""

from __future__ import annotations

from collections.abc import Sequence

Entry = tuple[bytes, list[bytes]]
"""An entry as Redis returns it: its id, and its words (field, value, field, value ...)."""


def ripe_count(entries: Sequence[Entry], *, full: bool, force: bool = False) -> int:
    """How many of the entries read, from the first on, may be applied now.

    The prefix ends at the last entry with `end` or `origin`, or before the last change of commit LSN, whichever is
    later. Without a boundary nothing may be applied, unless the read was `full` (it hit its bound, so the transaction
    is larger than that). `force`: everything, wherever it ends.
    """
    if force or not entries:
        return len(entries)
    newest = _commit_lsn(entries[-1])
    for count in range(len(entries), 0, -1):
        entry = entries[count - 1]
        if ends_transaction(entry[1]) or _was_found(entry[1]) or _commit_lsn(entry) != newest:
            return count
    return len(entries) if full else 0


def ends_transaction(words: Sequence[bytes]) -> bool:
    """Whether an entry is the last one of its transaction in its stream."""
    if words[-2:] == [b"end", b"1"]:
        return True
    return any(words[at] == b"end" and words[at + 1] == b"1" for at in range(0, len(words) - 1, 2))


def _was_found(words: Sequence[bytes]) -> bool:
    """Whether an entry's row comes from a query, and not from the log."""
    return b"origin" in words[::2]


def _commit_lsn(entry: Entry) -> bytes:
    return entry[0].partition(b"-")[0]
