"""Where a batch ends: at the boundaries of source transactions, so that a replica never shows half of one.

Exceptions are a transaction that is larger than what is read at once, which is applied in parts, and rows that were
found by a query: a snapshot's chunk is nobody's transaction, and who waits for its end reads it again and again.
"""

from __future__ import annotations

from bisect import bisect_left

from sinks.entries import Entries, Entry


def ripe_count(entries: Entries, *, full: bool, force: bool = False) -> int:
    """How many of the entries read, from the first on, may be applied now.

    The prefix ends at the last entry with `end` or `origin`, or before the last change of commit LSN, whichever is
    later. Without a boundary nothing may be applied, unless the read was `full` (it hit its bound, so the transaction
    is larger than that). `force`: everything, wherever it ends.
    """
    if force or not entries:
        return len(entries)
    before_newest = bisect_left(entries, _commit_lsn(entries[-1]), key=_commit_lsn)  # ids rise
    return max(entries.ended(), before_newest) or (len(entries) if full else 0)


def _commit_lsn(entry: Entry) -> int:
    return int(entry[0].partition(b"-")[0])
