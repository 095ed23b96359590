"""Schema documents: what a consuming team knows of an event type, without the source's configuration or database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transforms.column_type import ColumnType, Form
from transforms.errors import MalformedEntry, StatecastError


class SchemaIncompatible(StatecastError):
    """A change of an event's shape that its version's consumers could not follow."""

    remedy = "Raise the event's `version`: consumers of the old version keep it as long as it is configured."


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """A field of the state."""

    name: str
    pg_type: str
    base_type: str
    nullable: bool
    form: str = "text"
    """Only for `json_schema`; not part of the document."""
    is_array: bool = False
    masked: str | None = None
    """How its values are hidden: `hash`, `redact` or `null`; None: they are the source's."""
    embed: EmbedSchema | None = None
    """What its values are made of, where they are rows of another table."""

    @classmethod
    def of(cls, name: str, type_: ColumnType, *, nullable: bool) -> SchemaColumn:
        """The column as the catalog describes it."""
        is_text = type_.element_oid != 0 and not type_.is_json_array
        form = Form.TEXT if is_text else type_.form
        return cls(name, type_.pg_type, type_.base_type, nullable, form.value, type_.is_json_array)

    def to_dict(self) -> dict[str, Any]:
        """As a document has it."""
        told = {
            "name": self.name,
            "pg_type": self.pg_type,
            "base_type": self.base_type,
            "nullable": self.nullable,
            "masked": self.masked or False,
            "labels": [],
        }
        return told | {"embed": self.embed.to_dict()} if self.embed else told

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> SchemaColumn:
        """Read what `to_dict` wrote, also of versions that knew neither masks nor embeds. Raises KeyError among others.

        `form` and `is_array` are not told.
        """
        return cls(
            raw["name"],
            raw["pg_type"],
            raw["base_type"],
            raw["nullable"],
            masked=raw.get("masked") or None,
            embed=EmbedSchema.read(raw["embed"]) if raw.get("embed") else None,
        )

    @property
    def shape(self) -> list[Any]:
        """What a document's fingerprint is made of: name and type, and mask and embed where it has them."""
        shape: list[Any] = [self.name, self.pg_type]
        if self.masked or self.embed:
            shape.append(self.masked)
        return [*shape, self.embed.shape] if self.embed else shape


@dataclass(frozen=True, slots=True)
class EmbedSchema:
    """The fields of related rows: a field of the state is an array of objects of them, or one object or null."""

    many: bool
    key: tuple[str, ...]
    """The fields that tell one row of the array from the others, as far as they are among `columns`."""
    columns: tuple[SchemaColumn, ...]

    def to_dict(self) -> dict[str, Any]:
        """As a document has it."""
        return {"many": self.many, "key": self.key, "columns": [column.to_dict() for column in self.columns]}

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> EmbedSchema:
        """Read what `to_dict` wrote. Raises KeyError among others."""
        return cls(raw["many"], tuple(raw["key"]), tuple(map(SchemaColumn.read, raw["columns"])))

    @property
    def shape(self) -> list[Any]:
        """What a document's fingerprint is made of."""
        return [self.many, self.key, [column.shape for column in self.columns]]


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
                "json_schema": self._json_schema(),
            },
            ensure_ascii=False,
        )

    def _json_schema(self) -> dict[str, Any]:
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.label,
            "type": "object",
            "properties": {column.name: _json_type(column) for column in self.columns},
        }

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

        Fields may be added when they are nullable, and types may change: older rows follow through a snapshot.
        Raises SchemaIncompatible for anything else.
        """
        if self.fingerprint == old.fingerprint:
            return replace(self, rev=old.rev, revisions=old.revisions)
        if (self.key, self.stream) != (old.key, old.stream):
            raise SchemaIncompatible(f"event {self.label}: its key or stream has changed")
        removed = [name for name in old.names if name not in self.names]
        if removed:
            raise SchemaIncompatible(f"event {self.label}: {', '.join(removed)} is no longer among its columns")
        required = [column.name for column in self.columns if column.name not in old.names and not column.nullable]
        if required:
            raise SchemaIncompatible(f"event {self.label}: the new field {', '.join(required)} is NOT NULL")
        return replace(self, rev=old.rev + 1, revisions=(*(old.revisions or (old.names,)), self.names))


def _json_type(column: SchemaColumn) -> dict[str, Any]:
    forms: dict[str, dict[str, Any]] = {
        Form.NUMBER.value: {"type": "integer"},
        Form.FLOAT.value: {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]},
        Form.BOOLEAN.value: {"type": "boolean"},
        Form.JSON.value: {},
        Form.JSONB.value: {},
    }
    scalar = forms.get(column.form, {"type": "string"})
    whole = {"type": ["array", "string"]} if column.is_array else scalar
    return {"anyOf": [whole, {"type": "null"}]} if column.nullable and whole else whole
