"""What a session's mapping says of which entries the source must send again; see `proof`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cdc.mapping import Shapes
from transforms.position import LSN, Position


class MappedTerms:
    """By the events as they are mapped now, and since when they are."""

    def __init__(self, shapes: Shapes, begins: Mapping[str, int]) -> None:
        """`begins`: label -> the first commit LSN from which its entries are what this mapping makes of the log."""
        self._shapes = shapes
        self._begins = begins
        self._tables = dict(shapes.mapped)

    def begins(self, type_: bytes) -> int:
        """From which commit LSN on the event is published as it is mapped now."""
        return self._begins.get(type_.decode(errors="replace"), 0)

    def is_owed(self, stream: str, type_: bytes, op: bytes) -> bool:
        """Whether the source sends an operation of an event, and it is published in this stream.

        A table that is swapped for another in this session is not followed back to what it was.
        """
        label = type_.decode(errors="replace")
        if label not in self._tables or self._shapes.mapped[label] != self._tables[label]:
            return False
        mapping = self._shapes[label].mapping
        if mapping.transform is not None:  # what comes again is read again, see `Translator`
            return False
        return mapping.stream == stream and (op != b"truncate" or mapping.truncate == "apply")


def begins_of(
    labels: Collection[str],
    changed: Collection[str],
    before: Mapping[str, int],
    published: LSN,
    ends: Mapping[str, Position],
) -> dict[str, int]:
    """Label -> from which commit LSN on it is published as it is mapped now.

    `before`: the same, as it was; what has `changed` is published so behind all that is in the streams.
    """
    behind_all = 1 + int(max((published, *(end.commit_lsn for end in ends.values()))))
    return {label: behind_all if label in changed else before.get(label, 0) for label in labels}
