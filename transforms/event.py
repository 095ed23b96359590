"""What crosses the rooms: one event is one entry of a stream, read back from wire format 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from transforms.position import Position

Origin = Literal["snapshot", "reread"]


@dataclass(frozen=True, slots=True)
class Upsert:
    """The row named by `key` is now `state`; both are JSON text, as published."""

    type: str
    key: bytes
    state: bytes
    position: Position
    ends_transaction: bool = False
    partial: tuple[str, ...] = ()
    """Names of the fields that `state` leaves out because the source did not send them: not NULL, unknown."""
    quoted: tuple[str, ...] = ()
    """Names of the json fields whose value in `state` is a JSON string that holds the JSON text."""
    rev: int = 1
    to: str | None = None
    previous: bytes | None = None
    """The state before, in the same form; None: it is not told."""
    previous_quoted: tuple[str, ...] = ()
    """What `quoted` is of the state."""


@dataclass(frozen=True, slots=True)
class Delete:
    """The row named by `key` is gone."""

    type: str
    key: bytes
    position: Position
    ends_transaction: bool = False
    to: str | None = None
    previous: bytes | None = None
    """The state before; None: it is not told."""
    previous_quoted: tuple[str, ...] = ()
    """Names of the json fields whose value in it is a JSON string that holds the JSON text."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Every row of the table is gone."""

    type: str
    position: Position
    ends_transaction: bool = False
    to: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A note in the stream that carries no row, such as the bounds of a snapshot run."""

    name: str
    data: dict[str, object] = field(hash=False)
    position: Position
    ends_transaction: bool = False
    to: str | None = None


Event = Upsert | Delete | Truncate | Mark
