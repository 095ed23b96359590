"""What an event publishes of its table as that is now, and whether consumers of what it published can follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from cdc.catalog import ColumnUnfit, ConditionUnfit, FieldPath, Table
from cdc.config import EventConfig
from cdc.event_mapping import EventMapping, fingerprint_of
from cdc.known import Known
from cdc.related.mapping import map_whole, schema_column
from cdc.shaping import ALL_COLUMNS
from cdc.stopping import Stop
from transforms.names import TableName
from transforms.schema import FieldsRetyped, SchemaColumn, SchemaDocument, SchemaIncompatible


class Shape(NamedTuple):
    """An event, and the document that its consumers see."""

    mapping: EventMapping
    document: SchemaDocument


def shape_of(event: EventConfig, tables: Mapping[TableName, Table], old: SchemaDocument | None) -> Shape:
    """The event's shape now; `old` is the document that was published last.

    Raises TableUnfit and its kinds, and SchemaIncompatible.
    """
    if event.columns == ALL_COLUMNS and old is not None:
        columns_of = {name: column for column, name in event.rename.items()}
        names = [column.name for column in old.columns if column.embed is None]
        event = event.model_copy(update={"columns": tuple(columns_of.get(name, name) for name in names)})
    mapping = map_whole(event, tables)
    columns = (*map(schema_column, mapping.fields), *(embed.schema for embed in mapping.embeds))
    key = tuple(field.name for field in mapping.key_fields)
    document = SchemaDocument(event.type, event.version, event.stream, key, columns)
    return Shape(mapping, document.succeed(old) if old else replace(document, revisions=(document.names,)))


def judged_shape(
    event: EventConfig, tables: Mapping[TableName, Table], old: SchemaDocument | None, known: Known | None
) -> Shape | Stop:
    """The event's shape now, or why it stops, since its table has changed; a mistake in the configuration is raised.

    `old` is the document that was published last, `known` what was known of the events then; None: the configuration
    is the same as then. Raises TableUnfit and its kinds, and SchemaIncompatible.
    """
    table = tables.get(event.table)
    if known is not None and table is not None:
        _expect_same_columns(event, table, known)
    try:
        return shape_of(event, tables, old)
    except (FieldsRetyped, ColumnUnfit) as error:
        if table is None or old is None or not _came_from_the_table(event, old, known, error):
            raise
        return Stop.because(event.label, error, table.oid, _remedy(event, table, error))


def _expect_same_columns(event: EventConfig, table: Table, known: Known) -> None:
    """Raise SchemaIncompatible where a published field would be filled from another column of the table than before.

    A column that the source has renamed and the configuration follows is the same one.
    """
    columns_before, numbers_before = known.columns.get(event.label, {}), known.numbers.get(event.label, {})
    numbers = {column.name: column.number for column in table.columns}
    for column in event.columns:
        field = event.rename.get(column, column)
        before = columns_before.get(field, column)
        was, is_now = numbers_before.get(before), numbers.get(column)
        if before != column and None not in (was, is_now) and was != is_now:
            raise SchemaIncompatible(f"event {event.label}: {field} was column {before} and is {column} now")


def _came_from_the_table(
    event: EventConfig, old: SchemaDocument, known: Known | None, error: FieldsRetyped | ColumnUnfit
) -> bool:
    """Whether it is the table that has changed, for what is wrong was right when it was published."""
    if isinstance(error, ConditionUnfit):
        same_where = known is None or known.shaping.get(event.label, {}).get("where") == fingerprint_of(
            event.where or ""
        )
        return event.where is not None and same_where
    if isinstance(error, ColumnUnfit):
        return bool(error.fields) and all(_is_told(old.columns, path) for path in error.fields)
    return True


def _is_told(columns: Sequence[SchemaColumn], path: FieldPath) -> bool:
    """Whether consumers know of a field."""
    for name in path[:-1]:
        columns = next((each.embed.columns for each in columns if each.name == name and each.embed is not None), ())
    return path[-1] in {column.name for column in columns}


def _remedy(event: EventConfig, table: Table, error: FieldsRetyped | ColumnUnfit) -> str:
    if isinstance(error, FieldsRetyped):
        return error.remedy
    if isinstance(error, ConditionUnfit):
        return (
            f"Give {table.name} the column back as it was, or change events.{event.name}.where: the event goes on with"
            " a snapshot."
        )
    return (
        f"Give the table its column {', '.join(error.columns)} again: the event goes on by itself then, with a"
        " snapshot. If it has another name now, list that and `rename` it to the old one. Or take it out of the event's"
        " `columns` and raise its `version`."
    )
