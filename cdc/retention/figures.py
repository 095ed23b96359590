"""Who has not read what, as figures: of each stream those who are farthest behind by name, the rest as one.

Names of groups that are not ours are chosen by others, and may be many: monitoring must not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cdc.retention.judging import Backlog

MOST_NAMED = 10
"""Of each stream."""
OTHERS = "others"


class Unread(NamedTuple):
    """What a reader of a stream has not read, and keeps."""

    stream: str
    """Without its epoch."""
    consumer: str
    kind: str
    """`sink`, `external` (a group that is not ours), `others` (all who are not named)."""
    size_bytes: int
    """Of Redis' memory, about."""
    holding_seconds: float
    """For how long entries have been kept that would be gone without him, since this process looks; 0: none are."""

    @classmethod
    def of(cls, stream: str, backlog: Backlog, holding_seconds: float) -> Unread:
        """What one look at a stream tells of a reader."""
        kind = "sink" if backlog.holder.is_sink else "external"
        return cls(stream, backlog.holder.name, kind, backlog.size_bytes, holding_seconds)

    def joined(self, other: Unread) -> Unread:
        """Both, under this one's name."""
        return self._replace(
            size_bytes=self.size_bytes + other.size_bytes,
            holding_seconds=max(self.holding_seconds, other.holding_seconds),
        )


def named(found: Iterable[Unread]) -> list[Unread]:
    """One figure for each reader of each stream, in all of its epochs, and not too many."""
    by_reader: dict[tuple[str, str, str], Unread] = {}
    for each in found:
        reader = each[:3]
        by_reader[reader] = by_reader[reader].joined(each) if reader in by_reader else each
    named: list[Unread] = []
    others: dict[str, Unread] = {}
    count: dict[str, int] = {}
    for each in sorted(by_reader.values(), key=_urgency):
        count[each.stream] = count.get(each.stream, 0) + 1
        if count[each.stream] <= MOST_NAMED:
            named.append(each)
        else:
            other = each._replace(consumer=OTHERS, kind=OTHERS)
            others[each.stream] = others[each.stream].joined(other) if each.stream in others else other
    return [*named, *others.values()]


def _urgency(unread: Unread) -> tuple[float, float, str]:
    """Who has most to read first; of equals, who holds longest."""
    return (-unread.size_bytes, -unread.holding_seconds, unread.consumer)
