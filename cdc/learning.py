"""What a session finds out about the mapped tables before it streams, and which snapshots follow from that."""

from __future__ import annotations

import logging

from cdc.catalog import TableUnfit
from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.known import Known
from cdc.mapping import Change, Shapes
from cdc.partitions import by_label, runs_after_moves
from cdc.provisioning import Published, publish_tables
from cdc.source.connection import Source
from cdc.source.partitions import find_partitions
from cdc.source.publication import find_publication
from cdc.source.relations import expect_comparable
from cdc.source.tables import describe_tables, type_parts
from cdc.stopping import stopped
from cdc.terms import begins_of
from cdc.transport import TransportState

log = logging.getLogger(__name__)


class Learner:
    """First `publish`, then, when the slot is there, `learn`. Both raise StatecastError."""

    def __init__(self, config: ReaderConfig, source: Source, control: Control, shapes: Shapes) -> None:
        self._config = config
        self._source = source
        self._control = control
        self._shapes = shapes
        self._change: Change
        self._published: Published

    def publish(self, before: Known) -> None:
        """Judge what is mapped against the catalog, and have it published. Raises TableUnfit among others."""
        shapes, tables = self._shapes, describe_tables(self._source, self._shapes.tables)
        try:
            self._change = shapes.compare(
                tables,
                before.mapped,
                snapshot=self._config.source.snapshot == "initial",
                shaping_before=before.shaping,
                known=before,
            )
            for shape in shapes.values():
                expect_comparable(self._source, shape.mapping)
            self._published = publish_tables(
                self._source,
                self._config.publication,
                shapes,
                self._control,
                self._change.runs,
                Published(before.grounds, before.publication_version),
                tables,
            )
        except TableUnfit:  # snapshots are made of what cannot be followed, once it can be again
            publication = find_publication(self._source, self._config.publication)
            published = {*shapes.tables, *(publication.tables if publication else ())}
            runs = shapes.runs_of_unfit_tables(tables, published, before.mapped)
            known = self._control.runs()
            waiting = {run.event for run in known if run.state == "pending" and run.to is None and run.is_whole}
            self._control.store_runs([run for run in runs if run.event not in waiting])
            raise

    def learn(self, stored: TransportState, before: Known) -> Known:
        """Find out what is there now, and store it with the snapshots that make up for what the log does not tell."""
        shapes, mapped, change = self._shapes, self._shapes.mapped, self._change
        changed = {label for label, oid in mapped.items() if before.mapped.get(label) != oid}
        changed |= {document.label for document in change.documents} | change.reshaped
        placed = shapes.placed_otherwise(before.shaping, changed)
        begins = begins_of(mapped, placed, before.begins, stored.published, stored.stream_ends)
        runs = [*change.runs, *shapes.runs_of_torn_streams(before.mapped, stored, change.runs, placed)]
        shortened = shapes.runs_of_shortened_streams(stored, [*runs, *self._control.runs()])
        for run in shortened:
            log.warning("%s: %s. They are published again, and a snapshot of it is made", run.event, run.reason)
        runs += shortened
        parts = shapes.parts(type_parts(self._source, shapes.types))
        runs += shapes.runs_of_rewritten_values(before.parts, parts, runs)
        members = shapes.members
        found = find_partitions(self._source, [oid for oids in members.values() for oid in oids])
        runs += runs_after_moves(members, before.partitions, found, runs)
        known = Known(
            mapped,
            *self._published,
            begins,
            shapes.numbers,
            parts,
            by_label(members, found),
            {label: before.shaping.get(label, {}) for label in shapes.stopped} | shapes.shaping,
            dict(shapes.stopped),
            shapes.columns,
            shapes.relations,
        )
        self._control.store_shapes(change.documents, mapped, runs, known)
        for label, stop in shapes.stopped.items():
            log.error("%s", stopped(label, stop))
        return known
