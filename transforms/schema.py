"""Schema documents: what a consuming team knows of an event type, without the source's configuration or database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transforms.errors import MalformedEntry
from transforms.json_schema import state_schema
from transforms.schema_columns import EmbedSchema as EmbedSchema
from transforms.schema_columns import SchemaColumn as SchemaColumn
from transforms.succession import FieldsRetyped as FieldsRetyped
from transforms.succession import SchemaIncompatible as SchemaIncompatible
from transforms.succession import compare_fields


@dataclass(frozen=True, slots=True)
class SchemaDocument:
    """The shape of one event type and version."""

    type: str
    version: int
    stream: str
    key: tuple[str, ...]
    columns: tuple[SchemaColumn, ...]
    rev: int = 1
    revisions: tuple[tuple[str, ...], ...] = ()
    """The field names of each revision; the last is the present one."""
    apart: tuple[SchemaColumn, ...] = ()
    """Fields that a sink keeps outside of the event's own table, and not among its `columns`; never stored."""

    @property
    def label(self) -> str:
        """As entries name it: `customer.v1`."""
        return f"{self.type}.v{self.version}"

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of the state, in their order."""
        return tuple(column.name for column in self.columns)

    def names_all(self, *fields: Sequence[str]) -> bool:
        """Whether it has all of these fields."""
        return set().union(*fields) <= {column.name for column in (*self.columns, *self.apart)}

    def keeping_apart(self, *names: str) -> SchemaDocument:
        """The document with these fields outside of the event's own table."""
        kept = tuple(column for column in self.columns if column.name not in names)
        return replace(self, columns=kept, apart=tuple(column for column in self.columns if column.name in names))

    @property
    def fingerprint(self) -> str:
        """Changes with key, field names, field types, masks and embeds."""
        shape = [self.label, self.stream, self.key, [column.shape for column in self.columns]]
        return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]

    def tells_the_same_as(self, other: SchemaDocument) -> bool:
        """Whether consumers would read the same from both."""
        mine, others = (
            (document.fingerprint, document.rev, [column.to_dict() for column in document.columns])
            for document in (self, other)
        )
        return mine == others

    @property
    def later_names(self) -> frozenset[str]:
        """The fields that entries of earlier revisions do not have."""
        return frozenset(self.names).difference(*(self.revisions[:1] or [self.names]))

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the state, with that of the key among its `$defs`."""
        return state_schema(self.label, self.rev, self.key, self.columns, optional=self.later_names)

    def to_json(self) -> str:
        """The document as it is stored."""
        return json.dumps(
            {
                "format": 1,
                "type": self.type,
                "version": self.version,
                "streams": [self.stream],
                "partitions": 1,
                "key": self.key,
                "columns": [column.to_dict() for column in self.columns],
                "rev": self.rev,
                "revisions": self.revisions or [self.names],
                "fingerprint": self.fingerprint,
                "json_schema": self.json_schema(),
            },
            ensure_ascii=False,
        )

    @classmethod
    def parse(cls, text: str | bytes) -> SchemaDocument:
        """Read a stored document. Raises MalformedEntry."""
        try:
            raw: Mapping[str, Any] = json.loads(text)
            if raw["format"] != 1:
                raise MalformedEntry(f"a schema document is of format {raw['format']!r}, this version reads format 1")
            columns = tuple(map(SchemaColumn.read, raw["columns"]))
            revisions = tuple(tuple(names) for names in raw["revisions"])
            return cls(
                raw["type"], raw["version"], raw["streams"][0], tuple(raw["key"]), columns, raw["rev"], revisions
            )
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise MalformedEntry(f"a schema document cannot be read: {type(error).__name__} {error}") from error

    def succeed(self, old: SchemaDocument) -> SchemaDocument:
        """This shape as the next revision of `old`, or `old`'s revision when nothing consumers see has changed.

        Fields may be added when they are nullable: older rows follow through a snapshot. Raises FieldsRetyped where
        nothing but types is another, SchemaIncompatible for anything else.
        """
        if self.fingerprint == old.fingerprint:
            return replace(self, rev=old.rev, revisions=old.revisions)
        if (self.key, self.stream) != (old.key, old.stream):
            raise SchemaIncompatible(f"event {self.label}: its key or stream has changed")
        compare_fields(self.label, old.columns, self.columns)
        return replace(self, rev=old.rev + 1, revisions=(*(old.revisions or (old.names,)), self.names))
