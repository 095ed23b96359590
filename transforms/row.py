"""What a row of a relation becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Self, TypeAlias

from transforms.condition.judging import Judge


class Row(NamedTuple):
    """An encoded row: JSON text of its key and state, and the words of the entry's optional fields."""

    key: bytes
    state: bytes
    partial: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()


class Absent(NamedTuple):
    """A row that is in the table and not of the event: its `where` does not hold, or a hook leaves it out."""

    key: bytes


class Undecided(NamedTuple):
    """A row of which the log does not tell whether it is of the event: it must be read again by its key."""

    key: bytes


class Failed(NamedTuple):
    """A row that is not published, since its event's hook raised an error on it."""

    key: bytes
    error: str
    """The error's class."""
    line: str
    """Where, as `FILE:LINE`."""


EncodedRow: TypeAlias = tuple[bytes, bytes] | Row | Absent | Failed
"""Key and state; a Row where there is more to say."""
LoggedRow: TypeAlias = EncodedRow | Undecided


class SourcedKey(bytes):
    """A key as it is published with a part of it masked, which nobody can look for in the source.

    `source` is the same with the source's values: only in memory, to read the row again, and never shown.
    """

    source: bytes

    @classmethod
    def of(cls, published: bytes, source: bytes) -> Self:
        """The key that is published so, of the row that has these values."""
        key = cls(published)
        key.source = source
        return key


def source_key(key: bytes) -> bytes:
    """What finds the row: JSON text, in the published names."""
    return key.source if isinstance(key, SourcedKey) else key


Mask: TypeAlias = bytes | Callable[[bytes], bytes]
"""JSON text that stands for every value, or what makes JSON text of a value's text; NULL stays NULL."""


class Field(NamedTuple):
    """A field of the state: under which name a column is published, and how its values are hidden."""

    name: str
    column: str
    mask: Mask | None = None

    @property
    def is_constant(self) -> bool:
        """Whether no value of the column is needed, so that one which was not sent is no less than another."""
        return isinstance(self.mask, bytes)


def fields_of(named: Sequence[Field | str]) -> tuple[Field, ...]:
    """Fields; a name alone is that of a column which is published as it is."""
    return tuple(Field(one, one) if isinstance(one, str) else one for one in named)


class RowFilter(NamedTuple):
    """Which rows of a relation are of an event."""

    columns: tuple[str, ...]
    judge: Judge
    """Takes the texts of these columns' values; a row for which it does not say True is not of the event."""


NULL_JSON: Final = b"null"
