"""Where a change stands: byte offsets in the write-ahead log and the ids that entries get from them."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

SLOTS_PER_MESSAGE = 1_000_000
"""How many entries one message of the log may give in one stream; the ordinal is `n * SLOTS_PER_MESSAGE + slot`."""


class LSN(int):
    """A byte offset in the write-ahead log, an unsigned 64-bit integer.

    Compares and hashes as an int; prints as Postgres prints it (`16/B374D848`).
    Source: https://www.postgresql.org/docs/current/datatype-pg-lsn.html
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the `XXX/XXX` form. Raises ValueError on anything else."""
        halves = re.fullmatch(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", text)
        if halves is None:
            raise ValueError(f"not an LSN: {text!r} (expected hex/hex, like 16/B374D848)")
        high, low = (int(half, 16) for half in halves.groups())
        return cls(high << 32 | low)

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    __repr__ = __str__


class Position(NamedTuple):
    """The place of an entry in the source's commit order; prints as the entry's id, `<commit_lsn>-<ordinal>`.

    `commit_lsn` is the final LSN of the Begin message; `ordinal` is at least 1 but for `START`, before any entry.
    """

    commit_lsn: LSN
    ordinal: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an entry id. Raises ValueError on anything but two decimal 64-bit numbers."""
        halves = re.fullmatch(r"(\d{1,20})-(\d{1,20})", text, re.ASCII)
        if halves is None or any(int(half) >> 64 for half in halves.groups()):
            raise ValueError(f"not an entry id: {text!r} (expected two decimal numbers, like 24337-1000000)")
        return cls(LSN(halves[1]), int(halves[2]))

    def __str__(self) -> str:
        return f"{int(self.commit_lsn)}-{self.ordinal}"


START = Position(LSN(0), 0)
"""Before the first entry of every stream."""
