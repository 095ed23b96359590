"""A snapshot of an event as it is stored: what it is for, and how far it is."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One snapshot of one event."""

    id: str
    event: str
    """Its label, `customer.v1`."""
    state: str = "pending"
    """`pending`, `running` (its `run-begin` is published), `done`."""
    to: str | None = None
    """The one sink it is for."""
    first: bool = False
    """Whether the event was not published before: open writers are waited for."""
    reason: str | None = None
    """Why the reader made it by itself, where that may come as a surprise."""
    after: tuple[str, ...] | None = None
    """The key of the last row that is published, as Postgres' text."""
    rows: int = 0
    share: float = 0.0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @classmethod
    def new(cls, event: str, *, first: bool = False, reason: str | None = None) -> Run:
        """A run that the reader starts by itself."""
        return cls(secrets.token_hex(6), event, first=first, reason=reason, created_at=time.time())

    def replaced_by(self, run: Run) -> bool:
        """Whether it is over, and `run` of the same event makes it uninteresting."""
        return self.event == run.event and self.state == "done"

    def to_json(self) -> str:
        """The run as it is stored."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: bytes | str) -> Run:
        """Read a stored run."""
        raw = json.loads(text)
        after = raw.pop("after")
        return cls(**raw, after=None if after is None else tuple(after))

    def advanced(self, **changes: Any) -> Run:
        """The run with some fields changed."""
        return replace(self, **changes)
