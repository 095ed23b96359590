"""The section `[sinks.NAME.tables]`: which event goes to which table, and which of its embeds have one of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from transforms.config import Document, key_path, kind_of, unknown_key
from transforms.names import EVENT_LABEL, RESERVED_NAMES, TableName, event_label

_KEYS = ("table", "embeds")
"""Of the long form: `customer = { table = "replica.customers", embeds = { lines = "replica.order_lines" } }`."""

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbedTables:
    """The embeds of an event that have a table of their own."""

    path: Path
    """Where they are written, for mistakes that only the event's schema document tells."""
    tables: Mapping[str, TableName]
    """Embed -> its table."""


@dataclass(slots=True)
class TableMap:
    """What the section says."""

    tables: dict[str, TableName] = field(default_factory=dict)
    """Event label (`customer.v1`) -> its table."""
    embeds: dict[str, EmbedTables] = field(default_factory=dict)
    """Event label -> its embeds' tables, where it has some."""


def read_table_map(document: Document, *path: str) -> TableMap:
    """Read the section at `path`. Mistakes are noted in the document."""
    read = _Reading(document)
    lines = document.table(*path)
    if lines is not None and not lines:
        document.refuse(path, 'missing: expected at least one line like customer = "replica.customers"')
    for keys, value in _lines(lines or {}):
        read.line(path, keys, value)
    return read.map


def _lines(table: Mapping[str, object]) -> Iterator[tuple[Path, object]]:
    """The lines of the section. `customer.v2 = ...` without quotes is a table in a table to TOML."""
    for key, value in table.items():
        if not isinstance(value, dict) or not value:
            yield (key,), value
            continue
        is_long = not value.keys().isdisjoint(_KEYS)
        versions = [word for word in value if not is_long or EVENT_LABEL.fullmatch(f"{key}.{word}")]
        if is_long:
            yield (key,), {word: value[word] for word in value if word not in versions}
        yield from (((key, version), value[version]) for version in versions)


class _Reading:
    def __init__(self, document: Document) -> None:
        self.map = TableMap()
        self._document = document
        self._taken: dict[str | TableName, str] = {}
        """A label or a table -> the key that took it first."""

    def line(self, path: Path, keys: Path, value: object) -> None:
        where = (*path, *keys)
        label = EVENT_LABEL.fullmatch(".".join(keys))
        if label is None:
            self._document.refuse(
                where, "expected an event type, like customer, or one version of it, like customer.v2"
            )
            return
        if label["type"] in RESERVED_NAMES:
            self._document.refuse(where, f"expected an event type, which is not {', '.join(sorted(RESERVED_NAMES))}")
            return
        event = event_label(label["type"], int(label["version"] or 1))
        if isinstance(value, dict) and value:
            self._long_form(where, event, value)
        elif (table := self._table(where, value)) is not None:
            self._take(where, event, table)
            self.map.tables[event] = table

    def _long_form(self, where: Path, event: str, value: Mapping[str, object]) -> None:
        for key in value:
            if key not in _KEYS:
                self._document.refuse((*where, key), unknown_key(key, _KEYS))
        if "table" not in value:
            self._document.refuse((*where, "table"), "missing: expected a table's name as SQL writes it")
        elif (table := self._table((*where, "table"), value["table"])) is not None:
            self._take((*where, "table"), event, table)
            self.map.tables[event] = table
        embeds = value.get("embeds", {})
        where = (*where, "embeds")
        if not isinstance(embeds, dict):
            expected = 'expected a section of tables by embed, like { lines = "replica.order_lines" }'
            self._document.refuse(where, f"{expected}, got {kind_of(embeds)}")
            return
        tables = {}
        for embed, name in embeds.items():
            if (table := self._table((*where, embed), name)) is not None:
                self._take((*where, embed), None, table)
                tables[embed] = table
        if tables:
            self.map.embeds[event] = EmbedTables(where, tables)

    def _table(self, where: Path, value: object) -> TableName | None:
        if not isinstance(value, str):
            self._document.refuse(where, f"expected a table's name as SQL writes it, got {kind_of(value)}")
            return None
        try:
            return TableName.parse(value)
        except ValueError as error:
            self._document.refuse(where, str(error))
            return None

    def _take(self, where: Path, event: str | None, table: TableName) -> None:
        for taken, what in ((event, "event"), (table, "table")):
            if taken is not None and (other := self._taken.setdefault(taken, key_path(*where))) != key_path(*where):
                self._document.refuse(where, f"the same {what} as {other}")
