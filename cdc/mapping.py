"""What is mapped, as it stands: events checked against the catalog, their documents, and routes for relations."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cdc.catalog import (
    ColumnUnfit,
    OldRowsNotInLog,
    Table,
    TableUnfit,
    TypeParts,
    check_own_log,
    rewritten_columns,
)
from cdc.config import EventConfig
from cdc.event_shape import Shape, judged_shape
from cdc.known import Known
from cdc.related.mapping import map_whole, tables_of
from cdc.snapshot.run import Run
from cdc.source.publication import Publication
from cdc.stopping import Stop
from cdc.transport import TransportState
from transforms.masking import Masks
from transforms.names import TableName
from transforms.schema import SchemaDocument, SchemaIncompatible

log = logging.getLogger(__name__)

UNFIT = "its table could not be followed for a while: what changed meanwhile may not be in the log"
SHORTENED = "its stream lost entries in Redis"


@dataclass(slots=True)
class Change:
    """What follows from comparing what is mapped with what was."""

    documents: list[SchemaDocument] = field(default_factory=list)
    """New or changed ones."""
    runs: list[Run] = field(default_factory=list)
    reshaped: set[str] = field(default_factory=set)
    """Events that other rows are of, or whose values are hidden otherwise."""


def _reshaped(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What is another one now, in words."""
    words = {
        "where": "its condition is another one than before",
        "judged": "its condition's columns are of other types than before",
        "hash_key": "its hash key is another one than before",
        "transform": "its transform is another one than before",
    }
    others = {part for part in words if before.get(part) != now.get(part)}
    if "where" in others:
        others.discard("judged")
    return [words[part] for part in words if part in others]


def _by_type_and_version(item: tuple[str, int]) -> tuple[str, int]:
    """The order in which the events of one table take their slots, whatever that of the configuration."""
    type_, _, version = item[0].rpartition(".v")
    return type_, int(version)


class Shapes:
    """All events of the configuration by label."""

    def __init__(self, events: Sequence[EventConfig], stored: Mapping[str, SchemaDocument], masks: Masks) -> None:
        """`stored` are the documents that were published before."""
        self.masks = masks
        self._events = {event.label: event for event in events}
        self._stored = dict(stored)
        self._by_label: dict[str, Shape] = {}
        self.stopped: dict[str, Stop] = {}
        """Events whose tables have changed as their consumers could not follow; of them nothing is published."""

    @property
    def tables(self) -> tuple[TableName, ...]:
        """The mapped tables, each once."""
        return tuple(dict.fromkeys(table for event in self._events.values() for table in tables_of(event)))

    @property
    def mapped(self) -> dict[str, int]:
        """Label -> the OID of its table."""
        return {label: shape.mapping.table.oid for label, shape in self._by_label.items()}

    def values(self) -> Sequence[Shape]:
        """Every event with its document."""
        return list(self._by_label.values())

    def __getitem__(self, label: str) -> Shape:
        return self._by_label[label]

    @property
    def numbers(self) -> dict[str, dict[str, int]]:
        """Label -> the numbers of its columns that are read."""
        return {label: shape.mapping.numbers for label, shape in self._by_label.items()}

    @property
    def columns(self) -> dict[str, dict[str, str]]:
        """Label -> field -> the column that it is filled from."""
        return {
            label: {field.name: field.column.name for field in shape.mapping.fields}
            for label, shape in self._by_label.items()
        }

    @property
    def shaping(self) -> dict[str, dict[str, str]]:
        """Label -> what a change of makes other rows, or other values; see `EventMapping.shaping`."""
        return {label: shape.mapping.shaping(self.masks) for label, shape in self._by_label.items()}

    @property
    def relations(self) -> dict[str, dict[str, list[object]]]:
        """Label -> how its related rows are found; see `EventMapping.relations`."""
        return {label: shape.mapping.relations for label, shape in self._by_label.items()}

    @property
    def members(self) -> dict[str, list[int]]:
        """Label -> the OIDs of all tables that it is made of."""
        return {
            label: [table.oid for table in shape.mapping.tables.values()] for label, shape in self._by_label.items()
        }

    @property
    def types(self) -> list[int]:
        """The OIDs of the types of all columns that are read."""
        mappings = (shape.mapping for shape in self._by_label.values())
        return [column.type.base_oid for mapping in mappings for column in mapping.read_columns.values()]

    def parts(self, of_types: Mapping[int, Mapping[str, str]]) -> dict[str, TypeParts]:
        """Label -> what the values of its columns that are read are written with besides."""
        return {label: shape.mapping.parts(of_types) for label, shape in self._by_label.items()}

    @staticmethod
    def runs_of_rewritten_values(
        before: Mapping[str, TypeParts], now: Mapping[str, TypeParts], planned: Sequence[Run]
    ) -> list[Run]:
        """Runs for events with values that are written otherwise now, but for those that are planned already."""
        covered = {run.event for run in planned}
        runs = []
        for label, parts in now.items():
            if label not in covered and (columns := rewritten_columns(before.get(label, {}), parts)):
                reason = (
                    f"the type of its column {', '.join(columns)} was altered: the log does not tell its values anew"
                )
                log.warning("%s: %s. A snapshot of it is made", label, reason)
                runs.append(Run.new(label, reason=reason))
        return runs

    def compare(
        self,
        tables: Mapping[TableName, Table],
        mapped_before: Mapping[str, int],
        *,
        snapshot: bool,
        shaping_before: Mapping[str, Mapping[str, str]] | None = None,
        known: Known | None = None,
    ) -> Change:
        """Check all events against the catalog as it is now, and say what is new since they were last published.

        `known`: what an earlier session knew of them; None: it is this one that compares again. `shaping_before`: see
        `shaping`; None: that is not compared.

        Raises TableUnfit and its kinds, and SchemaIncompatible.
        """
        change = Change()
        for label, event in self._events.items():
            old = self._stored.get(label)
            stop, numbers = None if known is None else known.stopped.get(label), {} if known is None else known.numbers
            found = judged_shape(event, tables, old, known)
            if isinstance(found, Stop):
                self._by_label.pop(label, None)
                self.stopped[label] = found.going_on_from(stop)
                continue
            shape = found
            self.stopped.pop(label, None)
            self._by_label[label], self._stored[label] = shape, shape.document
            if old is None or not shape.document.tells_the_same_as(old):
                change.documents.append(shape.document)
            shaping = shape.mapping.shaping(self.masks)
            if others := [] if shaping_before is None else _reshaped(shaping_before.get(label, {}), shaping):
                change.reshaped.add(label)
            first = mapped_before.get(label) != shape.mapping.table.oid
            grown = old is not None and shape.document.rev > old.rev
            if stop is not None:
                log.warning("event %s goes on: a snapshot of it is made", label)
                change.runs.append(Run.new(label, first=True, reason=stop.after))
            elif (first and snapshot) or grown:
                change.runs.append(Run.new(label, first=first))
            elif not first and (replaced := shape.mapping.replaced_columns(numbers.get(label, {}))):
                reason = f"its column {', '.join(replaced)} is another one than before: the log has no old rows' values"
                log.warning("%s: %s. A snapshot of it is made", label, reason)
                change.runs.append(Run.new(label, first=True, reason=reason))
            elif not first and others:
                reason = " and ".join(others)
                log.warning("%s: %s. A snapshot of it is made", label, reason)
                change.runs.append(Run.new(label, reason=reason))
            elif not first and (moved := self._related_otherwise(shape, known)):
                reason = f"its {', '.join(moved)} are other rows than before, or in another order"
                log.warning("%s: %s. A snapshot of it is made", label, reason)
                change.runs.append(Run.new(label, first=True, reason=reason))
        return change

    @staticmethod
    def _related_otherwise(shape: Shape, known: Known | None) -> list[str]:
        before = {} if known is None else known.relations.get(shape.mapping.label, {})
        return shape.mapping.other_relations(before)

    def runs_after_return(self, tables: Sequence[TableName], planned: Sequence[Run], reason: str) -> list[Run]:
        """Runs for the events of tables that were not published for a while, but for those that are planned already."""
        covered = {run.event for run in planned if run.first}
        labels = [
            label
            for label, event in self._events.items()
            if not {*tables_of(event)}.isdisjoint(tables) and label not in self.stopped
        ]
        return [Run.new(label, first=True, reason=reason) for label in labels if label not in covered]

    def returned(self, grounds_before: Mapping[str, Sequence[str]], publication: Publication) -> list[TableName]:
        """The tables that were taken out of the publication and added again since `grounds_before` (label -> grounds).

        An event of which nothing was stored was mapped later, or by an earlier version.
        """
        returned = []
        for name, table in self._grounded():
            before, now = grounds_before.get(name), publication.grounds.get(table)
            if before is not None and now is not None and not now & set(before):
                returned.append(table)
        return list(dict.fromkeys(returned))

    def grounds(self, publication: Publication) -> dict[str, list[str]]:
        """Label -> by what its table is published, as it is stored; those of related rows behind the label."""
        known = publication.grounds
        return {name: sorted(known[table]) for name, table in self._grounded() if table in known}

    def _grounded(self) -> Iterator[tuple[str, TableName]]:
        """Each event's tables, under the names that `grounds` gives them."""
        for label, event in self._events.items():
            own, *related = tables_of(event)
            yield label, own
            yield from ((f"{label} {table}", table) for table in related)

    def placed_otherwise(self, before: Mapping[str, Mapping[str, str]], changed: Collection[str]) -> set[str]:
        """Events whose entries may have other ids when the log comes again: those that have changed, or are told apart
        from what was `before` (see `shaping`) by where they give entries, and all in the same streams.

        Each message's entries are counted in their stream.
        """
        streams = {
            self._by_label[label].mapping.stream
            for label, shaping in self.shaping.items()
            if label in changed or before.get(label, {}).get("placing") != shaping["placing"]
        }
        return {label for label, shape in self._by_label.items() if shape.mapping.stream in streams}

    def runs_of_torn_streams(
        self,
        mapped_before: Mapping[str, int],
        stored: TransportState,
        planned: Sequence[Run],
        placed: Collection[str] = (),
    ) -> list[Run]:
        """Runs for events whose stream holds a part of a transaction that another mapping had begun to publish.

        The rest of it may be numbered otherwise now, so an entry could be taken for a repeat.
        """
        if not mapped_before or (mapped_before.keys() == self._by_label.keys() and not placed):
            return []
        covered = {run.event for run in planned}
        streams = {label: shape.mapping.stream for label, shape in self._by_label.items() if label not in covered}
        return [
            Run.new(label)
            for label, stream in streams.items()
            if stored.stream_ends[stream] > stored.kept_last_id(stream)
        ]

    def runs_of_shortened_streams(self, stored: TransportState, planned: Sequence[Run]) -> list[Run]:
        """Runs for events whose stream alone has lost its end, so that finished chunks of snapshots may be missing.

        The changes that it lost are in the slot, or there is no start. Rows of snapshots are not.
        """
        covered = {run.event for run in planned if run.to is None and run.is_whole and run.state == "pending"}
        streams = {label: shape.mapping.stream for label, shape in self._by_label.items() if label not in covered}
        return [
            Run.new(label, reason=SHORTENED)
            for label, stream in streams.items()
            if stored.stream_ends[stream] < stored.kept_last_id(stream)
        ]

    def stopped_otherwise(self, tables: Mapping[TableName, Table]) -> list[str]:
        """What is to be said of events that must stop now, or need not any more. Raises TableUnfit."""
        found = []
        for label, event in self._events.items():
            table = tables.get(event.table)
            with suppress(SchemaIncompatible):  # another key: that is judged where the log tells of it
                judged = judged_shape(event, tables, self._stored.get(label), None) if table is not None else None
                if isinstance(judged, Stop) and label not in self.stopped:
                    found.append(f"event {label} has to stop: {judged.reason}")
                elif isinstance(judged, Shape) and label in self.stopped:
                    found.append(f"event {label} can be followed again")
        return found

    def expect_fit(self, tables: Mapping[TableName, Table]) -> None:
        """Raise TableUnfit where events cannot be followed any more in a way of which the log tells nothing.

        What is not there any more is judged where the log tells of it.
        """
        for event in self._events.values():
            table = tables.get(event.table)
            with suppress(ColumnUnfit):
                if table is None:
                    continue
                mapping, shape = map_whole(event, tables), self._by_label.get(event.label)
                if shape is not None and (others := mapping.other_relations(shape.mapping.relations)):
                    names = ", ".join(others)
                    raise TableUnfit(f"event {event.label}: its {names} are other rows now, or in another order")

    def runs_of_unfit_tables(
        self, tables: Mapping[TableName, Table], published: Collection[TableName], mapped_before: Mapping[str, int]
    ) -> list[Run]:
        """Runs for events that were published and cannot be followed now, in a way of which the log tells nothing.

        Once that is mended, nobody knows any more what was missed.
        """
        runs = []
        for label, event in self._events.items():
            table = tables.get(event.table)
            if table is None or label not in mapped_before:
                continue
            try:
                for member in tables_of(event):
                    if member in tables:
                        check_own_log(tables[member], published)
                map_whole(event, tables)
            except (ColumnUnfit, OldRowsNotInLog):  # nothing that was published before is missed
                continue
            except TableUnfit:
                runs.append(Run.new(label, first=True, reason=UNFIT))
        return runs

    def oids(self) -> dict[int, list[str]]:
        """Table OID -> the labels whose rows it holds."""
        found: dict[int, list[str]] = {}
        for label, oid in sorted(self.mapped.items(), key=_by_type_and_version):
            found.setdefault(oid, []).append(label)
        return found

    def related_oids(self) -> dict[int, list[tuple[str, str]]]:
        """Table OID -> the embeds whose rows it holds, each as the event's label and the embed's path."""
        found: dict[int, list[tuple[str, str]]] = {}
        for label, shape in self._by_label.items():
            for title, way in shape.mapping.ways.items():
                found.setdefault(way[-1].table.oid, []).append((label, title))
        return found
