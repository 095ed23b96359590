"""What can be read by query: an event, with how its rows are found and encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from cdc.catalog import EventMapping
from cdc.encoding import encoder_for
from cdc.route import Route
from cdc.source.chunk import ChunkQuery
from transforms.column_type import ColumnType, RelationColumn
from transforms.masking import Masks


@dataclass(frozen=True, slots=True)
class Subject:
    """An event that can be read by query."""

    mapping: EventMapping
    route: Route
    estimated_rows: int
    condition: str | None = None
    """SQL, in the names of the event's columns, that the rows of a range must meet."""

    @classmethod
    def of(cls, mapping: EventMapping, rev: int, stream_key: Callable[[str], bytes], masks: Masks) -> Subject:
        """Compile the encoder for rows in the order of the columns that are read."""
        relation = [RelationColumn(column.name, column.type) for column in mapping.read]
        encoder = encoder_for(mapping, masks, relation, mapping.fields, mapping.condition)
        is_hooked = mapping.transform is not None
        route = Route(mapping.label, mapping.stream, stream_key(mapping.stream), encoder, rev=rev, is_hooked=is_hooked)
        return cls(mapping, route, mapping.table.estimated_rows)

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
    def event(self) -> str:
        """The event's label, `customer.v1`."""
        return self.mapping.label

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
            tuple(field.column for field in key),
            tuple(field.name for field in key),
            after,
            until,
            limit,
            keys,
            only=table.kind != "p",
            condition=self.condition if keys is None else None,
        )
