"""Whose an event's tables are, its own and those of its embeds, and what the coming and going of these asks for."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sinks.children.child import Child
from sinks.children.shape import ChildShape, shapes
from sinks.config import SinkConfig
from sinks.errors import TableMisfit
from sinks.ownership import claim, forget_rows
from sinks.postgres import Database, compose, identifier, literal, readable
from sinks.privileges import require
from sinks.replica import Examination, Replica, columns_of, examine, key_of
from transforms.names import TableName
from transforms.schema import SchemaDocument

log = logging.getLogger(__name__)


class MappedTable(NamedTuple):
    """A table that a sink keeps: of an event, or of one of its embeds."""

    event: str
    """The event's label, `order.v1`."""
    label: str
    """Under which it is registered: the event's, `order.v1.lines` for an embed."""
    table: TableName
    document: SchemaDocument


def mapped_tables(config: SinkConfig, documents: Mapping[str, SchemaDocument]) -> Iterator[MappedTable]:
    """Every table of these events, each event's own first. Raises ConfigurationError."""
    for label, document in documents.items():
        yield MappedTable(label, label, config.tables[label], document)
        for shape in shapes(config, label, document):
            yield MappedTable(label, shape.label, shape.table, shape.document)


def claim_whole(
    database: Database,
    config: SinkConfig,
    label: str,
    document: SchemaDocument,
    *,
    begins: bool,
    complete: bool,
    is_rebuilt: bool,
) -> Replica:
    """Make an event's table and those of its embeds fit and register them, in the transaction in hand.

    `begins`: its stream is begun, perhaps again. `complete`: the stream still has every entry. The rows come again
    where a child table is new to this sink, another than before, or was left for a while. Raises what `claim` does.
    """
    table, wanted, lacks = config.tables[label], shapes(config, label, document), not (begins and complete)
    require(database, [table])
    examination = _examine(database, label, table, document)
    if begins and examination.owner is not None:  # rows of another life of the streams
        forget_rows(database, str(table), even_if_new=examination.has_rows or not complete)
    left = _tell_left(left_children(database, config, label, wanted))
    if _claim_children(database, config, wanted, wants_snapshot=lacks, is_rebuilt=is_rebuilt) or left:
        forget_rows(database, str(table))
    sink = config.pipeline.name, config.name
    replica = claim(database, examination, *sink, adopt=config.adopt, wants_snapshot=lacks, is_rebuilt=is_rebuilt)
    load_children(database, replica, wanted)
    return replica


def _claim_children(
    database: Database, config: SinkConfig, wanted: list[ChildShape], *, wants_snapshot: bool, is_rebuilt: bool
) -> bool:
    """Returns whether their parents must come again."""
    names = [str(shape.table) for shape in wanted]
    sink = config.pipeline.name, config.name
    for shape in wanted:
        require(database, [shape.table])
        examination = _examine(database, shape.label, shape.table, shape.document)
        claim(database, examination, *sink, adopt=config.adopt, wants_snapshot=wants_snapshot, is_rebuilt=is_rebuilt)
    lacking = database.rows(
        b"UPDATE cdc.replica SET wants_snapshot = false WHERE table_name = ANY(%s) AND wants_snapshot"
        b" RETURNING table_name",
        [names],
    )
    return bool(lacking)


def _examine(database: Database, label: str, table: TableName, document: SchemaDocument) -> Examination:
    examination = examine(database, label, table, document)
    for warning in examination.warnings:
        log.warning("%s: %s", table, warning)
    return examination


def load_children(database: Database, replica: Replica, wanted: list[ChildShape]) -> None:
    """Give the replica its children, in the transaction in hand. Raises TableMisfit for one that is not claimed yet."""
    children = []
    for shape in wanted:
        types, equals = columns_of(database, shape.table), key_of(database, shape.table)
        if not types.keys() >= set(shape.document.names) or equals.keys() != set(shape.document.key):
            raise TableMisfit(
                f"{shape.table} is not as embed {shape.field} of {shape.event} needs it",
                remedy="Start the sink's worker, `cdc-sink run NAME`: it makes the table, or says what does not fit.",
            )
        children.append(Child.of(shape, types, equals, replica.types))
    replica.children = tuple(children)


class LeftTable(NamedTuple):
    """A child table that this sink kept before, and does not now."""

    table: str
    field: str
    is_news: bool
    """Whether no session has begun without it yet."""

    @property
    def reason(self) -> str:
        """What became of it."""
        return f"it is not kept any more: embed {self.field} is not mapped to it"

    @property
    def remedy(self) -> str:
        """SQL that removes it."""
        table = TableName.parse(self.table)
        forget = compose("DELETE FROM cdc.replica WHERE table_name = {}", literal(self.table))
        return f"{readable(compose('DROP TABLE IF EXISTS {}', identifier(table)))}; {readable(forget)};"


def left_children(database: Database, config: SinkConfig, label: str, wanted: list[ChildShape]) -> list[LeftTable]:
    """Those of an event, in the transaction in hand."""
    rows = database.rows(
        b"SELECT table_name, substr(event, length(%s) + 1), NOT wants_snapshot FROM cdc.replica"
        b" WHERE pipeline = %s AND sink = %s AND starts_with(event, %s) AND NOT event LIKE '%% (rebuild)'"
        b" AND NOT table_name = ANY(%s) ORDER BY table_name",
        [f"{label}.", config.pipeline.name, config.name, f"{label}.", [str(shape.table) for shape in wanted]],
    )
    return [LeftTable(*row) for row in rows]


def _tell_left(left: list[LeftTable]) -> bool:
    """Log them; returns whether their parents must come again, since the embed has become a column."""
    for table in left:
        log.warning("%s: %s. Remove it: %s", table.table, table.reason, table.remedy)
    return any(table.is_news for table in left)
