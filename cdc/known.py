"""What a session has found out about the mapped tables, kept in Redis for the next one.

The log does not tell everything: what differs now was changed without a word in it, and a snapshot makes up for that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from cdc.stopping import Stop


@dataclass(frozen=True, slots=True)
class Known:
    """Each by the labels of the events; empty where an earlier version did not keep it."""

    mapped: Mapping[str, int] = field(default_factory=dict)
    """The OIDs of their tables."""
    grounds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By which rows of the catalog their tables are published; see `Publication.grounds`."""
    publication_version: str | None = None
    """See `Publication.version`."""
    begins: Mapping[str, int] = field(default_factory=dict)
    """From which commit LSN on each is published as it is mapped now."""
    numbers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Column -> its number."""
    parts: Mapping[str, Any] = field(default_factory=dict)
    """What the types of their columns are made of; see `Shapes.parts`."""
    partitions: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """The OIDs of their tables' partitions that hold rows."""
    shaping: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """See `Shapes.shaping`."""
    stopped: Mapping[str, Stop] = field(default_factory=dict)
    """Those that are stopped alone: of them there is next to nothing else here."""
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Field -> the column that it is filled from."""
    relations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """How their related rows are found; see `EventMapping.relations`."""

    @property
    def events(self) -> dict[str, int]:
        """What is published or would be if it were not stopped: the OIDs of the tables."""
        return {**self.mapped, **{label: stop.table for label, stop in self.stopped.items()}}

    @classmethod
    def parse(cls, meta: Mapping[str, str]) -> Self:
        """Read what `fields` wrote, among the fields of the meta hash."""

        def stored(name: str) -> Any:
            return json.loads(meta.get(name, "{}"))

        stopped = {label: Stop.read(raw) for label, raw in stored("stopped").items()}
        return cls(
            {label: oid for label, oid in stored("events").items() if label not in stopped},
            stored("grounds"),
            meta.get("publication_version"),
            stored("begins"),
            stored("numbers"),
            stored("parts"),
            stored("partitions"),
            stored("shaping"),
            stopped,
            stored("columns"),
            stored("relations"),
        )

    def fields(self) -> dict[str, str]:
        """Fields of the meta hash."""
        version = {} if self.publication_version is None else {"publication_version": self.publication_version}
        by_label = {
            "events": self.events,
            "grounds": self.grounds,
            "begins": self.begins,
            "numbers": self.numbers,
            "parts": self.parts,
            "partitions": self.partitions,
            "shaping": self.shaping,
            "columns": self.columns,
            "stopped": {label: stop.to_dict() for label, stop in self.stopped.items()},
            "relations": self.relations,
        }
        return {name: json.dumps(values) for name, values in by_label.items()} | version
