"""What can be read by query: an event, with how its rows are found and encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from cdc.catalog import EventMapping
from cdc.route import Route
from cdc.source.chunk import ChunkQuery
from transforms.column_type import ColumnType, RelationColumn
from transforms.encoder import compile_encoder


@dataclass(frozen=True, slots=True)
class Subject:
    """An event that can be read by query."""

    mapping: EventMapping
    route: Route
    estimated_rows: int
    condition: str | None = None
    """SQL, in the names of the event's columns, that the rows of a range must meet."""

    @classmethod
    def of(cls, mapping: EventMapping, rev: int, stream_key: Callable[[str], bytes]) -> Subject:
        """Compile the encoder for rows in the order of the event's columns."""
        relation = [RelationColumn(column.name, column.type) for column in mapping.columns]
        encoder = compile_encoder(relation, mapping.names, mapping.key)
        route = Route(mapping.label, mapping.stream, stream_key(mapping.stream), encoder, rev=rev)
        return cls(mapping, route, mapping.table.estimated_rows)

    @property
    def columns(self) -> dict[str, ColumnType]:
        """The types of the event's columns by name."""
        return {column.name: column.type for column in self.mapping.columns}

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
        by_name = {column.name: column for column in self.mapping.columns}
        key = tuple(by_name[name] for name in self.mapping.key)
        table = self.mapping.table
        return ChunkQuery(
            table.name,
            self.mapping.columns,
            key,
            after,
            until,
            limit,
            keys,
            only=table.kind != "p",
            condition=self.condition if keys is None else None,
        )
