"""The fields of a state, as schema documents tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.column_type import ColumnType


@dataclass(frozen=True, slots=True)
class SchemaColumn:
    """A field of the state."""

    name: str
    pg_type: str
    base_type: str
    nullable: bool
    masked: str | None = None
    """How its values are hidden: `hash`, `redact` or `null`; None: they are the source's."""
    embed: EmbedSchema | None = None
    """What its values are made of, where they are rows of another table."""

    @classmethod
    def of(cls, name: str, type_: ColumnType, *, nullable: bool) -> SchemaColumn:
        """The column as the catalog describes it."""
        return cls(name, type_.pg_type, type_.base_type, nullable)

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
        """Read what this or an earlier version has written. Raises KeyError among others."""
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
