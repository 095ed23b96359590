"""A snapshot of an event as it is stored: what it is for, and how far it is."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from transforms.condition.refusal import excerpt


@dataclass(frozen=True, slots=True)
class Run:
    """One snapshot of one event."""

    id: str
    event: str
    """Its label, `customer.v1`."""
    state: str = "pending"
    """`pending`, `running` (its `run-begin` is published, unless it is `where` something), `done`, `refused`."""
    to: str | None = None
    """The one sink it is for."""
    first: bool = False
    """Whether the event was not published before: open writers are waited for."""
    where: str | None = None
    """A condition, as it was asked for: only the rows that meet it are published, and sinks delete nothing."""
    reason: str | None = None
    """Why it was refused; or why the reader made it by itself, where that may come as a surprise."""
    after: tuple[str, ...] | None = None
    """The key of the last row that is published, or was left out, as Postgres' text."""
    rows: int = 0
    scanned: int = 0
    """`rows`, and those that were left out."""
    share: float = 0.0
    created_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None

    @classmethod
    def new(cls, event: str, *, first: bool = False, reason: str | None = None) -> Run:
        """A run that the reader starts by itself."""
        return cls(secrets.token_hex(6), event, first=first, reason=reason, created_at=time.time())

    @property
    def title(self) -> str:
        """What it is a snapshot of, in words."""
        return self.event if self.where is None else f"{self.event} where {excerpt(self.where)}"

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state in ("done", "refused")

    def refused(self, reason: str) -> Run:
        """The run, which is not made."""
        where = None if self.where is None else excerpt(self.where)
        return self.advanced(state="refused", where=where, reason=reason, finished_at=time.time())

    def replaced_by(self, run: Run) -> bool:
        """Whether it is over, and `run` of the same event makes it uninteresting."""
        asked_before = self.state == "done" or self.created_at < run.created_at
        return self.event == run.event and self.is_over and asked_before

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
