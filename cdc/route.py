"""What becomes of a relation's rows: the event and stream that they feed, and the entries' fixed parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cdc import append
from transforms.encoder import RowEncoder
from transforms.row import LoggedRow


@dataclass(frozen=True, slots=True)
class Route:
    """One event that a relation feeds."""

    event: str
    """Its label, `customer.v1`."""
    stream: str
    key: bytes
    """The stream's, in Redis."""
    encoder: RowEncoder
    truncate: str = "apply"
    unchanged_toast: str = "reread"
    rev: int = 1
    lacking: tuple[str, ...] = ()
    """Fields that the relation's rows in the log do not have: such rows are read from the table."""
    previous: bool = False
    """Whether entries carry the old state, where the log tells it."""
    is_hooked: bool = False
    """Whether a function of the operator's has a say in what is published."""
    is_read: bool = False
    """Whether every row that is not deleted is read from the table, for it has related rows; see `cdc.related`."""
    row: Callable[[bytes, int, int], LoggedRow] = field(init=False)
    """The encoder's."""
    is_plain: bool = field(init=False)
    """Whether a plain row makes an entry without optional fields."""
    label: bytes = field(init=False)
    suffix: tuple[bytes, ...] = field(init=False)
    template: append.Template = field(init=False)

    def __post_init__(self) -> None:
        label = self.event.encode()
        object.__setattr__(self, "row", self.encoder.row)
        unusual = self.lacking or self.previous or self.is_hooked or self.is_read
        object.__setattr__(self, "is_plain", self.rev == 1 and not unusual)
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "suffix", (b"rev", b"%d" % self.rev) if self.rev > 1 else ())
        object.__setattr__(self, "template", append.Template(self.key, label))
