"""What can be read by query: an event, with how its rows are found and encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from cdc.catalog import Column
from cdc.encoding import encoder_for
from cdc.event_mapping import EventMapping
from cdc.route import Route
from cdc.source.chunk import ChunkQuery
from transforms.column_type import ColumnType, RelationColumn
from transforms.masking import Masks
from transforms.names import TableName
from transforms.nested import nested_encoder
from transforms.row import EncodedRow, Field

_NESTED = ColumnType("json", "json", 114)


@dataclass(frozen=True, slots=True)
class Subject:
    """An event that can be read by query."""

    mapping: EventMapping
    route: Route
    estimated_rows: int
    condition: str | None = None
    """SQL, in the names of the event's columns, that the rows of a range must meet."""
    encoded_keys: Callable[[list[bytes]], Sequence[EncodedRow]] = field(kw_only=True)
    """Encodes rows of the key's columns in COPY's text format."""

    @classmethod
    def of(cls, mapping: EventMapping, rev: int, stream_key: Callable[[str], bytes], masks: Masks) -> Subject:
        """Compile the encoder for rows in the order of the columns that are read."""
        relation = [RelationColumn(column.name, column.type) for column in mapping.read]
        related = [RelationColumn(f"\0{embed.name}", _NESTED) for embed in mapping.embeds]  # as no column is named
        values = [
            Field(embed.name, column.name, nested_encoder(embed.nesting(masks)))
            for embed, column in zip(mapping.embeds, related, strict=True)
        ]
        encoder = encoder_for(mapping, masks, [*relation, *related], mapping.fields, mapping.condition, values)
        key = [RelationColumn(field.column.name, field.column.type) for field in mapping.key_fields]
        keys = encoder_for(mapping, masks, key, (), None)
        is_hooked = mapping.transform is not None
        route = Route(mapping.label, mapping.stream, stream_key(mapping.stream), encoder, rev=rev, is_hooked=is_hooked)
        return cls(mapping, route, mapping.table.estimated_rows, encoded_keys=keys.lines)

    @property
    def columns(self) -> dict[str, ColumnType]:
        """The types of the event's columns by name; not of those that are masked, whose values nobody may ask for."""
        return {field.column.name: field.column.type for field in self.mapping.fields if field.masked is None}

    @property
    def key_is_masked(self) -> bool:
        """Whether the key of a row may be stored nowhere as it is in the table."""
        return self.mapping.key_is_masked

    def only_where(self, condition: str) -> Self:
        """The rows that meet a condition."""
        return replace(self, condition=condition)

    @property
    def key_columns(self) -> tuple[Column, ...]:
        """Those of the key, in the order in which its rows are read."""
        return tuple(field.column for field in self.mapping.key_fields)

    def keys(self, lines: list[bytes]) -> list[bytes]:
        """The event's keys for rows of the key's columns in COPY's text format."""
        return [row[0] for row in self.encoded_keys(lines)]

    @property
    def event(self) -> str:
        """The event's label, `customer.v1`."""
        return self.mapping.label

    def reads_right(self, table: TableName, types: Mapping[str, str]) -> bool:
        """Whether the columns of one of its tables, which have these types now, are still read as what they are."""
        return all(types.get(column.name) == column.type.pg_type for column in self.mapping.read_by_table[table])

    def query(
        self,
        *,
        after: tuple[str, ...] | None = None,
        until: tuple[str, ...] | None = None,
        limit: int | None = None,
        keys: frozenset[bytes] | None = None,
    ) -> ChunkQuery:
        """The rows behind `after`, up to `until`, in the order of the key; or those with one of `keys`, whichever."""
        table, key = self.mapping.table, self.mapping.key_fields
        return ChunkQuery(
            table.name,
            self.mapping.read,
            self.key_columns,
            tuple(field.name for field in key),
            after,
            until,
            limit,
            keys,
            only=table.kind != "p",
            condition=self.condition if keys is None else None,
            embeds=self.mapping.embeds,
        )
