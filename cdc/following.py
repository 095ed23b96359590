"""What a session does while mapped tables change under it: it follows, or says that the next session must judge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from cdc.announced import doubtful_columns
from cdc.catalog import TableUnfit, check_own_log, rewritten_columns
from cdc.control import Control
from cdc.errors import SourceError
from cdc.known import Known
from cdc.mapping import Shapes
from cdc.messages import RelationMessage
from cdc.partitions import by_label
from cdc.related.touching import RelatedRoute
from cdc.route import Route
from cdc.routing import Routing
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.source.connection import Source
from cdc.source.partitions import find_partitions
from cdc.source.publication import find_publication
from cdc.source.tables import attributes, column_types, describe_tables, partition_ancestors, type_parts

log = logging.getLogger(__name__)


RELATION_UNTOLD = "for a while the log did not tell to which rows its {} belonged"


class MappingMoved(SourceError):
    """A mapped table or the publication was changed by hand; the next session judges what follows from it."""

    retryable = True
    remedy = "Nothing: the reader follows by itself where it can, with a snapshot, or stops and says what to do."


class Follower:
    """Keeps routes and subjects in step with the source's catalog."""

    def __init__(
        self,
        shapes: Shapes,
        publication: str,
        known: Known,
        source: Source,
        control: Control,
        on_new_runs: Callable[[], None],
        stream_key: Callable[[str], bytes],
    ) -> None:
        """`known`: of the tables, as this session found them.

        `source` and `control` are for the stream's thread; `on_new_runs` is called when snapshots were stored.
        """
        self.subjects = {
            shape.mapping.label: Subject.of(shape.mapping, shape.document.rev, stream_key, shapes.masks)
            for shape in shapes.values()
        }
        """What can be read by query, by label: as the catalog was when it was looked at last."""
        self._shapes = shapes
        self._publication = publication
        self._known = known
        self._source = source
        self._control = control
        self._on_new_runs = on_new_runs
        self._stream_key = stream_key
        self._routing = Routing(shapes, stream_key)
        self._labels_of = shapes.oids()
        self._related_of = shapes.related_oids()

    def routes(self, message: RelationMessage) -> list[Route]:
        """The routes of a relation that the log announces (called by the stream's thread)."""
        labels = self._labels_of.get(message.relation_id, [])
        if not labels:
            for ancestor in partition_ancestors(self._source, message.relation_id):
                for label in self._labels_of.get(ancestor, []):  # each partition has an identity of its own
                    self._routing.expect_key(label, message)
            return []
        types = column_types(self._source, [(info.type_oid, info.type_modifier) for info in message.columns])
        if not all(self._routing.fits(label, message, types) for label in labels):
            self._follow_catalog()
        self._judge_columns(message, labels)
        return [self._routing.route(label, message, types) for label in labels]

    def related_routes(self, message: RelationMessage) -> list[RelatedRoute]:
        """What a relation that the log announces is to embeds (called by the stream's thread)."""
        embeds = self._related_of.get(message.relation_id, [])
        if not embeds:
            if self._related_of:
                for ancestor in partition_ancestors(self._source, message.relation_id):
                    self._expect_relations_told(self._related_of.get(ancestor, []), message)
            return []
        types = column_types(self._source, [(info.type_oid, info.type_modifier) for info in message.columns])
        if not all(self._routing.related_fits(label, related, message, types) for label, related in embeds):
            self._follow_catalog()
        routes = [self._routing.related_route(label, related, message, types) for label, related in embeds]
        self._expect_relations_told(embeds, message)
        return [route for route in routes if route is not None]

    def _expect_relations_told(self, embeds: Sequence[tuple[str, str]], message: RelationMessage) -> None:
        """Have snapshots made where deletes of related rows in the log do not tell which rows they belonged to.

        While the catalog says so too, no session goes on: see `verify`.
        """
        runs = [
            Run.new(label, reason=RELATION_UNTOLD.format(related))
            for label, related in embeds
            if not self._routing.tells_relation(label, related, message)
        ]
        for run in runs:
            log.warning("%s: %s. A snapshot of it is made", run.event, run.reason)
        if runs:
            self._control.store_runs(runs)
            self._on_new_runs()

    def _judge_columns(self, message: RelationMessage, labels: Sequence[str]) -> None:
        """Have snapshots made where values in the log may be those of other columns; see `announced`.

        Raises MappingMoved where the table's columns are not those that this session began with.
        """
        announced = [info.name for info in message.columns]
        if announced == self._routing.logged_columns(labels[0]):
            return
        found = attributes(self._source, message.relation_id)
        numbers = {one.name: one.number for one in found if not one.dropped}
        runs = []
        for label in labels:
            self._expect_numbers(label, numbers)
            read = [column.name for column in self._shapes[label].mapping.read]
            if others := doubtful_columns(announced, found, read):
                reason = f"its column {', '.join(others)} was another one for a while: the log has that one's values"
                log.warning("%s: %s. A snapshot of it is made", label, reason)
                runs.append(Run.new(label, reason=reason))
        if runs:
            self._control.store_runs(runs)
            self._on_new_runs()

    def _expect_numbers(self, label: str, numbers: Mapping[str, int]) -> None:
        """Raise MappingMoved where columns of an event's table are not those that this session began with."""
        if others := [
            name for name, number in self._known.numbers[label].items() if numbers.get(name, number) != number
        ]:
            table = self._shapes[label].mapping.table.name
            raise MappingMoved(f"columns of {table} are other ones now: {', '.join(others)}")

    def _follow_catalog(self) -> None:
        """The log's columns are not the mapping's: has a table changed, or is this from before a change?"""
        shapes = self._shapes
        change = shapes.compare(
            describe_tables(self._source, shapes.tables),
            shapes.mapped,
            snapshot=True,
            shaping_before=self._known.shaping,
        )
        self._expect_the_same_to_go_on()
        if change.reshaped:
            raise MappingMoved(
                f"columns that `where` of event {', '.join(sorted(change.reshaped))} looks at were altered"
            )
        if not change.documents:
            return
        for document in change.documents:
            log.warning("the table of event %s has changed: revision %d", document.label, document.rev)
            mapping = shapes[document.label].mapping
            self.subjects[document.label] = Subject.of(mapping, document.rev, self._stream_key, shapes.masks)
        self._labels_of, self._related_of = shapes.oids(), shapes.related_oids()
        self._control.store_shapes(change.documents, {**self._known.events, **shapes.mapped}, change.runs)
        self._on_new_runs()

    def _expect_the_same_to_go_on(self) -> None:
        """Raise MappingMoved where another event has to stop, or none any more: the next session goes on so."""
        now, known = self._shapes.stopped, self._known.stopped
        said = [f"event {label} has to stop: {now[label].reason}" for label in now if label not in known]
        if said := [*said, *(f"event {label} can be followed again" for label in known if label not in now)]:
            raise MappingMoved("; ".join(said))

    def verify(self, source: Source) -> None:
        """Raise MappingMoved when tables or publication are not those of this session (the snapshot's thread calls).

        Postgres tells nothing of it in the log: a table that was swapped for another one just falls silent.
        """
        publication = find_publication(source, self._publication)
        found = describe_tables(source, self._shapes.tables)
        members = [table for shape in self._shapes.values() for table in shape.mapping.tables.values()]
        mapped = {table.name: table.oid for table in members}
        moved = [table for table, oid in mapped.items() if table not in found or found[table].oid != oid]
        if moved:
            raise MappingMoved(f"{', '.join(map(str, moved))} is another table now, or none")
        for shape in self._shapes.values():
            self._expect_numbers(shape.mapping.label, shape.mapping.numbers_in(found))
        if publication is None or not publication.complete or not all(map(publication.tables.get, mapped)):
            raise MappingMoved(f"publication {self._publication} does not hold all that is mapped any more")
        for label, parts in self._shapes.parts(type_parts(source, self._shapes.types)).items():
            if altered := rewritten_columns(self._known.parts.get(label, {}), parts):
                raise MappingMoved(f"event {label}: the type of column {', '.join(altered)} was altered")
        try:
            if changes := self._shapes.stopped_otherwise(found):
                raise MappingMoved("; ".join(changes))
            self._shapes.expect_fit(found)
            for table in found.values():
                check_own_log(table, publication.tables)
        except TableUnfit as error:
            raise MappingMoved(str(error)) from error
        oids = self._shapes.members
        partitions = by_label(oids, find_partitions(source, [oid for each in oids.values() for oid in each]))
        if moved_in := [label for label, oids in partitions.items() if oids != self._known.partitions[label]]:
            raise MappingMoved(f"the partitions of event {', '.join(moved_in)} are other ones now")
        if publication.version != self._known.publication_version:
            raise MappingMoved(f"publication {self._publication} was altered")
        if returned := self._shapes.returned(self._known.grounds, publication):
            names = ", ".join(map(str, returned))
            raise MappingMoved(f"{names} was taken out of publication {self._publication} and added again")
