"""What the table of an embed looks like, as its event's schema document and the sink's configuration have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sinks.config import SinkConfig
from transforms.config import ConfigurationError, key_path
from transforms.names import TableName, identifier_problem
from transforms.schema import EmbedSchema, SchemaColumn, SchemaDocument

ORDINAL = "ordinal"
"""The column with a row's place in the array, from 1 on, where the embed's fields do not tell its rows apart."""


@dataclass(frozen=True, slots=True)
class ChildShape:
    """The table of an embed."""

    event: str
    """The event's label, `order.v1`."""
    field: str
    table: TableName
    many: bool
    parents: Mapping[str, str]
    """Column of the event's key -> the column that holds it here."""
    fields: tuple[str, ...]
    """Those of the embed; each is a column."""
    is_numbered: bool
    """Whether `ordinal` is part of the key."""
    document: SchemaDocument
    """Columns and key, in the form in which `examine` wants them."""

    @property
    def label(self) -> str:
        """Under which the table is registered: `order.v1.lines`."""
        return f"{self.event}.{self.field}"


def keep_apart(config: SinkConfig, documents: Mapping[str, SchemaDocument]) -> dict[str, SchemaDocument]:
    """The documents, by label, as the sink keeps their events: without embeds that have a table of their own.

    Raises ConfigurationError for what is no embed of its event.
    """
    mistakes: list[str] = []
    kept = {}
    for label, document in documents.items():
        names: list[str] = []
        if (mapped := config.embeds.get(label)) is not None:
            names = list(mapped.tables)
            known = [column.name for column in document.columns if column.embed is not None]
            for name in names:
                if name not in known:
                    there = f"it has {', '.join(known)}" if known else "it has none"
                    mistakes.append(f"{key_path(*mapped.path, name)}: no embed of event {label} ({there})")
        kept[label] = document.keeping_apart(*names)
    if mistakes:
        raise ConfigurationError(
            mistakes, remedy="Name embeds that the event has, or wait for the reader to publish them."
        )
    return kept


def shapes(config: SinkConfig, label: str, document: SchemaDocument) -> list[ChildShape]:
    """The tables of an event's embeds. `document`: as `keep_apart` returns it.

    Raises ConfigurationError where two columns would have one name, or one that Postgres does not hold.
    """
    found, mistakes = [], []
    for column in document.apart:
        assert column.embed is not None
        mapped = config.embeds[label]
        shape = _shape(document, column.name, column.embed, mapped.tables[column.name])
        if (mistake := _mistake(shape)) is not None:
            mistakes.append(f"{key_path(*mapped.path, column.name)}: {mistake}")
        found.append(shape)
    if mistakes:
        raise ConfigurationError(
            mistakes,
            remedy="Take the embed out of `embeds`, which makes it a jsonb column; or have the event publish the field"
            " under another name, or not at all.",
        )
    return found


def _shape(document: SchemaDocument, field: str, embed: EmbedSchema, table: TableName) -> ChildShape:
    types = {column.name: column for column in document.columns if column.name in document.key}
    parents = {name: f"{document.type}_{name}" for name in document.key if name in types}
    columns = [SchemaColumn(parents[name], types[name].pg_type, types[name].base_type, False) for name in parents]
    own = _key(embed) if embed.many else []
    is_numbered = embed.many and not own
    if is_numbered:
        own = [ORDINAL]
        columns.append(SchemaColumn(ORDINAL, "integer", "integer", False))
    shape = SchemaDocument(
        document.type, document.version, document.stream, (*parents.values(), *own), (*columns, *embed.columns)
    )
    fields = tuple(column.name for column in embed.columns)
    return ChildShape(document.label, field, table, embed.many, parents, fields, is_numbered, shape)


def _key(embed: EmbedSchema) -> list[str]:
    """The embed's key, unless a mask leaves nothing of it that could tell rows apart."""
    masks = {column.name: column.masked for column in embed.columns}
    return list(embed.key) if all(masks.get(name, "") in (None, "hash") for name in embed.key) else []


def _mistake(shape: ChildShape) -> str | None:
    for name in shape.parents.values():
        if (problem := identifier_problem(name)) is not None:
            return f"the column for the event's key, <event type>_<key>, would have {problem}"
        if name in shape.fields:
            return (
                f"its table would have two columns {name}: the embed's field, and <event type>_<key> of the event's key"
            )
    if shape.is_numbered and ORDINAL in shape.fields:
        return f"its table would have two columns {ORDINAL}: the embed's field, and a row's place in the array"
    return None
