"""How many rows are read at a time: a chunk's in half a second, published in a quarter; fewer by their keys."""

from __future__ import annotations

from typing import Final

FIRST_ROWS: Final = 2_000
LEAST_ROWS: Final = 100
MOST_ROWS: Final = 100_000
CHUNK_SECONDS: Final = 0.5
"""So long a chunk holds a transaction open and its share of the memory."""
PUBLISHING_SECONDS: Final = 0.25
"""So long the stream's thread publishes a chunk: changes wait meanwhile, perhaps for another thread's chunk too."""
FIRST_KEYS: Final = 500
MOST_KEYS: Final = 2_000
KEYS_SECONDS: Final = 0.1
"""So long rows are read by their keys, while changes of all of them wait."""
_ALL_BYTES: Final = 24 << 20
"""Of all that is read by query and in hand at a time, as the source sends it."""
_ROOM: Final = 0.9
"""Rows differ: a chunk that would just fit is often cut, which costs a cancelled query."""


def next_rows(limit: int, rows: int, size_bytes: int, seconds: float, budget_bytes: int) -> int:
    """The next chunk's limit after one with `limit` gave so many rows and bytes in so many seconds."""
    if not rows:
        return limit
    grown = min(limit * 2, int(rows * CHUNK_SECONDS / max(seconds, 0.001)))
    fitting = int(_ROOM * budget_bytes * rows / max(size_bytes, 1))
    return max(LEAST_ROWS, min(grown, fitting, MOST_ROWS))


def next_keys(limit: int, rows: int, size_bytes: int, seconds: float, budget_bytes: int) -> int:
    """How many rows are read again by their keys, after up to `limit` of them gave so much in so many seconds."""
    if not rows:
        return limit
    fitting = int(_ROOM * budget_bytes * rows / max(size_bytes, 1))
    return max(1, min(limit * 2, int(rows * KEYS_SECONDS / max(seconds, 0.001)), fitting, MOST_KEYS))


def publishable_rows(rows: int, seconds: float) -> int:
    """How many rows are published in time, after so many took so many seconds."""
    return max(LEAST_ROWS, min(int(rows * PUBLISHING_SECONDS / max(seconds, 0.001)), MOST_ROWS))


def share_bytes(threads: int) -> int:
    """What a chunk may have where so many threads read chunks, and one more what is to be read again."""
    return _ALL_BYTES // (threads + 1)
