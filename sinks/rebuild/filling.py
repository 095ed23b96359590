"""A rebuild as a session works on it: which table takes what, and what its errors mean."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sinks.errors import (
    AccessDenied,
    DataRefused,
    LiveTableRefuses,
    RebuildFailed,
    TableMisfit,
    TargetRefused,
    TooManyParked,
)
from sinks.rebuild.record import Record
from sinks.replica import Replica
from transforms import wire
from transforms.event import Mark

_OF_THE_SHADOW = (AccessDenied, TableMisfit, TargetRefused, TooManyParked)


def takes_rows(replica: Replica, *, own: bool) -> bool:
    """Rows for this sink alone (`own`) are of use only within a run whose begin the table has seen.

    Others are of a rebuild that was given up, or of a run begun before this sink came, which asks for its own.
    """
    return not own or replica.run is not None


@dataclass(slots=True)
class Rebuild:
    """A rebuild in hand."""

    record: Record
    shadow: Replica
    stream: str
    """In which its event is."""
    live_fits: bool
    """Whether the live table has the event's types."""
    written: int = 0
    """Rows that were written to the shadow and are not noted yet."""

    def copied(self) -> Rebuild:
        """For a transaction that may be rolled back."""
        return replace(self, shadow=copy.copy(self.shadow))

    @property
    def is_filled(self) -> bool:
        """Whether the shadow holds what the live table is to hold."""
        return self.shadow.filled

    @property
    def shadow_takes_rows(self) -> bool:
        """Before its run begins it needs none: that one brings them."""
        return self.shadow.filled or self.shadow.run is not None

    def live_takes_rows(self, live: Replica, *, own: bool) -> bool:
        """`own`: rows of a snapshot for this sink alone."""
        is_for_shadow = own and self.shadow.run is not None and self.shadow.run == self.record.run
        return not self.record.frozen and not is_for_shadow and takes_rows(live, own=own)

    def live_takes_mark(self, mark: Mark) -> bool:
        """Whether a run fills the live table too."""
        return not self.record.frozen and str(mark.data.get("run")) != self.record.run

    def empties_shadow(self, mark: Mark) -> bool:
        """Whether what the shadow has is of a run that will not end any more."""
        return mark.name == wire.RUN_BEGIN and not self.shadow.filled

    @contextmanager
    def on_shadow(self) -> Iterator[None]:
        """What the shadow does not take at all ends the rebuild, and nothing else. Raises RebuildFailed."""
        try:
            yield
        except _OF_THE_SHADOW as error:
            raise RebuildFailed(str(error), self.record.event) from error

    @contextmanager
    def on_live(self) -> Iterator[None]:
        """A table with the event's former types takes what it can. Raises LiveTableRefuses."""
        try:
            yield
        except (DataRefused, TooManyParked) as error:
            if self.live_fits:
                raise
            raise LiveTableRefuses(str(error), self.record.event) from error
