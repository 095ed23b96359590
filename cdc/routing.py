"""From a relation as the log announces it to the routes of its rows: what of the mapping fits it, and what does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from cdc.catalog import (
    KeyNotInLog,
    identity_for,
)
from cdc.encoding import encoder_for
from cdc.mapping import Shapes
from cdc.messages import RelationMessage
from cdc.related.touching import RelatedRoute
from cdc.route import Route
from cdc.shaping import read_where
from transforms.column_type import ColumnType, RelationColumn
from transforms.condition.columns import columns_of
from transforms.condition.refusal import ConditionRefused
from transforms.names import TableName

log = logging.getLogger(__name__)


class Routing:
    """The routes of events, and of their related rows."""

    def __init__(self, shapes: Shapes, stream_key: Callable[[str], bytes]) -> None:
        self._shapes = shapes
        self._stream_key = stream_key

    def fits(self, label: str, message: RelationMessage, types: Sequence[ColumnType]) -> bool:
        """Whether the log's columns are those of the mapping, type by type."""
        named = {info.name: type_.pg_type for info, type_ in zip(message.columns, types, strict=True)}
        return all(named.get(column.name) == column.type.pg_type for column in self._shapes[label].mapping.read)

    def route(self, label: str, message: RelationMessage, types: Sequence[ColumnType]) -> Route:
        """Compile the route of an event for a relation as the log announces it.

        Rows from before a field was added are published in the revision that they have; those that lack one which was
        there (a column renamed and renamed back, a column list for a while) by what the table holds. Raises KeyUnfit.
        """
        self.expect_key(label, message)
        shape = self._shapes[label]
        mapping, document = shape.mapping, shape.document
        relation = [RelationColumn(info.name, type_) for info, type_ in zip(message.columns, types, strict=True)]
        present = {column.name: column.type for column in relation}
        fields = [field for field in mapping.fields if field.column.name in present]
        names = tuple(field.name for field in fields)
        rev, lacking = document.rev, tuple[str, ...]()
        if names != mapping.names:
            older = [number for number, fields in enumerate(document.revisions, 1) if set(fields) == set(names)]
            if older and mapping.transform is None:  # a function is shown every field
                rev = older[-1]
            else:
                lacking = tuple(column.name for column in mapping.columns if column.name not in present)
        condition = mapping.condition
        if mapping.where is not None and condition is not None:
            judged = columns_of(condition)
            try:
                condition = read_where(mapping.where, present)
            except ConditionRefused:  # its columns are not there yet, or were of other types
                condition, lacking = None, lacking or judged
        if lacking:
            log.warning(
                "event %s: rows of %s in the log have no column %s, so they are read from the table",
                label, mapping.table.name, ", ".join(lacking),
            )  # fmt: skip
        is_read = bool(mapping.embeds)  # then the log's own rows only tell which are to be read
        encoder = encoder_for(mapping, self._shapes.masks, relation, () if is_read else fields, condition)
        return Route(
            label,
            mapping.stream,
            self._stream_key(mapping.stream),
            encoder,
            mapping.truncate,
            mapping.unchanged_toast,
            rev,
            lacking,
            mapping.previous,
            mapping.transform is not None,
            is_read,
        )

    def expect_key(self, label: str, message: RelationMessage) -> None:
        """Raise KeyNotInLog where changes of a relation, an event's table or a partition of it, do not tell the key."""
        mapping = self._shapes[label].mapping
        named = {info.name for info in message.columns if info.is_key}
        unkeyed = [name for name in mapping.key if name not in named]
        if not unkeyed:
            return
        table = TableName(message.schema, message.name)
        has_default = message.replica_identity == "d"
        identity = "FULL" if has_default else identity_for(mapping.table, mapping.key)
        raise KeyNotInLog(
            f"event {label}: the replica identity of {table} does not hold {', '.join(unkeyed)},"
            " so deletes and key changes in the log do not tell which row they concern",
            remedy=f"Run `ALTER TABLE {table} REPLICA IDENTITY {identity}` and `cdc snapshot --all`, then"
            " start the reader again: it begins a new epoch of the streams.",
        )

    def logged_columns(self, label: str) -> list[str]:
        """The columns of an event's table that the log tells, in their order, as the catalog was looked at last."""
        return [column.name for column in self._shapes[label].mapping.table.columns if not column.generated]

    def related_fits(self, label: str, related: str, message: RelationMessage, types: Sequence[ColumnType]) -> bool:
        """The same as `fits` for the columns that are read of an embed's rows, generated ones apart."""
        named = {info.name: type_.pg_type for info, type_ in zip(message.columns, types, strict=True)}
        read = self._shapes[label].mapping.ways[related][-1].read_columns.values()
        return all(column.generated or named.get(column.name) == column.type.pg_type for column in read)

    def related_route(
        self, label: str, related: str, message: RelationMessage, types: Sequence[ColumnType]
    ) -> RelatedRoute | None:
        """What a relation is to an embed of an event; None: it does not tell which rows its own belong to."""
        embed = self._shapes[label].mapping.ways[related][-1]
        relation = [RelationColumn(info.name, type_) for info, type_ in zip(message.columns, types, strict=True)]
        try:
            return RelatedRoute(label, embed, relation)
        except KeyError:
            return None

    def tells_relation(self, label: str, related: str, message: RelationMessage) -> bool:
        """Whether deletes in the log, of a relation or a partition of it, tell which rows the embed's belonged to."""
        told = {info.name for info in message.columns if info.is_key}
        return all(own.name in told for own, _ in self._shapes[label].mapping.ways[related][-1].on)
