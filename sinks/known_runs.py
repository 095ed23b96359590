"""Marks of snapshot runs, held against what the reader has stored of its runs.

At a run's end rows are deleted that were not seen since its begin, so a mark that is not the reader's would empty a
table. A run is stored before its begin is published, and kept until the next run of its event begins; of where its
marks are it is stored as soon as they are published. A sink that is far behind may meet a run that is forgotten since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple, Self

from sinks.compaction import Step
from transforms import wire
from transforms.errors import MalformedEntry
from transforms.event import Mark
from transforms.position import Position


class KnownRun(NamedTuple):
    """What a reader has stored of a run."""

    event: str
    to: str | None
    begun: Position | None
    ended: Position | None
    """Its marks; None: not published, or not told: by a reader of a version before."""

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a stored run. Raises MalformedEntry."""
        try:
            raw = json.loads(text)
            begun, ended = (None if raw.get(name) is None else Position.parse(raw[name]) for name in ("begun", "ended"))
            return cls(str(raw["event"]), raw.get("to"), begun, ended)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise MalformedEntry(
                f"a snapshot run is stored as something that no reader wrote: {type(error).__name__}",
                remedy="Find out who else writes to PIPELINE:status:snapshots: only the reader of its pipeline may.",
            ) from error


def run_of(mark: Mark) -> str:
    """The run that a mark is of."""
    return str(mark.data.get("run"))


def marks_of_runs(steps: Sequence[Step]) -> list[Mark]:
    """The marks with which runs begin and end."""
    return [step for step in steps if isinstance(step, Mark) and step.name in (wire.RUN_BEGIN, wire.RUN_END)]


def foreign_marks(
    marks: Sequence[Mark], known: Mapping[str, KnownRun], asked: Set[str | None] = frozenset()
) -> list[Mark]:
    """Those that are not the reader's. One that was published, and stored once more after a crash, comes before.

    `asked`: runs that the reader was asked for by this sink, which are its own also once they are forgotten.
    """
    return [mark for mark in marks if not _is_readers(mark, known.get(run_of(mark)), run_of(mark) in asked)]


def _is_readers(mark: Mark, known: KnownRun | None, asked: bool) -> bool:
    begins = mark.name == wire.RUN_BEGIN
    if known is None:
        # The end of what was begun is the replica's to judge: it knows which run that was.
        return asked or not begins
    place = known.begun if begins else known.ended
    return (known.event, known.to) == (mark.data.get("event"), mark.to) and (place is None or mark.position <= place)
