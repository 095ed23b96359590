"""Events that are stopped alone: their table has changed in a way that their version's consumers cannot follow.

Nothing of such an event is published, while all others flow and the slot moves on. It is as if it were not configured,
but remembered: once the table or the configuration is mended, a snapshot of the event makes up for what was missed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from transforms.errors import StatecastError


class EventsStopped(StatecastError):
    """Something is asked of events that are stopped."""

    remedy = "See `cdc status`: it says for each event what mends it."


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an event is stopped, kept in Redis by the event's label."""

    reason: str
    remedy: str
    since: float
    """Seconds since 1970."""
    table: int
    """The OID of its table."""

    @classmethod
    def because(cls, label: str, error: StatecastError, table: int, remedy: str | None = None) -> Self:
        """It stops now; `remedy`: another one than the error's."""
        return cls(str(error).removeprefix(f"event {label}: "), remedy or error.remedy, time.time(), table)

    def going_on_from(self, before: Stop | None) -> Stop:
        """The same, since when it was stopped before, if it was."""
        return self if before is None else Stop(self.reason, self.remedy, before.since, self.table)

    @property
    def after(self) -> str:
        """Why a snapshot is made once it is mended."""
        return f"it was stopped, and what changed meanwhile was not published: {self.reason}"

    def error(self, label: str) -> EventsStopped:
        """For somebody who wants something of the event."""
        return EventsStopped(f"event {label} is stopped: {self.reason}", remedy=self.remedy)

    def to_dict(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `to_dict` wrote, also of later versions."""
        return cls(**{field.name: raw[field.name] for field in fields(cls)})


def refusal(stopped: Mapping[str, Stop]) -> EventsStopped:
    """For a reader that was to publish all that is there. `stopped`: at least one, by label."""
    errors = [stop.error(label) for label, stop in stopped.items()]
    return errors[0] if len(errors) == 1 else EventsStopped("\n".join(map(str, errors)))


def stopped(label: str, stop: Stop) -> str:
    """For logs."""
    return f"event {label} stops, all others go on: {stop.reason} ({stop.remedy})"
