"""What is to be known of a table that can be mapped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cdc.config import ALL_COLUMNS
from cdc.event_mapping import EventMapping
from cdc.init.facts import TableFacts
from cdc.init.personal import looks_personal
from cdc.init.sql_text import identifier, table_name
from cdc.wording import size
from transforms.column_type import ColumnType

_FIRST_OWN_OID: Final = 16384
"""Types with a lower OID come with the server, so a replica's server has them too. (FirstNormalObjectId)"""

_STORED_MAY_BE_PUBLISHED_SINCE: Final = 180000


class Kind(Enum):
    """What a caution is about, in the words of the summary."""

    PERSONAL_KEY = "the key looks personal, and a key is always published"
    LARGE_VALUES = "large values that an update leaves alone are not sent again"
    PARTITIONED = "TRUNCATE, ATTACH and DETACH of one partition are not in the log"
    NAMELESS = "a column called * cannot be listed"
    GENERATED = "generated columns are left out"
    AS_TEXT = "types of this database's own may become text in a replica"
    INHERITANCE = "rows of a table that inherits are in its own event only"
    ROW_SECURITY = "row security is on, so the role needs BYPASSRLS"


@dataclass(frozen=True, slots=True)
class Caution:
    """One of them, as it is at one event."""

    kind: Kind
    text: str
    sql: str | None = None
    """What would change it."""


def cautions_about(facts: TableFacts, mapping: EventMapping, server_version: int) -> tuple[Caution, ...]:
    """All that apply to an event."""
    texts = {
        Kind.PERSONAL_KEY: _personal_key(facts, mapping),
        Kind.PARTITIONED: _partitioned(facts, mapping),
        Kind.NAMELESS: _nameless(mapping),
        Kind.GENERATED: _generated(facts, server_version),
        Kind.AS_TEXT: _as_text(mapping),
        Kind.INHERITANCE: _inheritance(facts, mapping),
        Kind.ROW_SECURITY: _row_security(facts),
    }
    return (*_large_values(facts, mapping), *(Caution(kind, text) for kind, text in texts.items() if text))


def _personal_key(facts: TableFacts, mapping: EventMapping) -> str:
    personal = [name for name in mapping.key if looks_personal(facts.name.name, name)]
    return f"looks personal and is published all the same, being the key: {_names(personal)}" if personal else ""


def _large_values(facts: TableFacts, mapping: EventMapping) -> Iterator[Caution]:
    columns = [name for name in mapping.names if name in facts.toastable]
    if mapping.table.identity != "f" and facts.toast_bytes and columns:
        yield Caution(
            Kind.LARGE_VALUES,
            f"{size(facts.toast_bytes)} of large values (of {_names(columns)}): an update that leaves one alone"
            " does not send it, so the row is read again by its key: a moment later, at the price of a query. To have"
            " all of it in the log, which grows by the old rows:",
            f"ALTER TABLE {table_name(facts.name)} REPLICA IDENTITY FULL;",
        )


def _partitioned(facts: TableFacts, mapping: EventMapping) -> str:
    if facts.kind != "p":
        return ""
    return (
        "partitioned: its partitions' rows are published under this one event; run"
        f" `cdc snapshot {mapping.label.partition('.')[0]}` after TRUNCATE, ATTACH or DETACH of a single partition,"
        " which are not in the log"
    )


def _nameless(mapping: EventMapping) -> str:
    there = any((column.name,) == ALL_COLUMNS for column in mapping.table.columns)
    return 'left out: a column called "*", which in a list would stand for all columns' if there else ""


def _generated(facts: TableFacts, server_version: int) -> str:
    parts = []
    if facts.virtual:
        parts.append(f"{_names(facts.virtual)} (virtual: in no log)")
    if facts.stored:
        why = (
            "not published" if server_version >= _STORED_MAY_BE_PUBLISHED_SINCE else "not in the log before Postgres 18"
        )
        parts.append(f"{_names(facts.stored)} (stored: {why})")
    return f"left out since they are generated: {', '.join(parts)}" if parts else ""


def _as_text(mapping: EventMapping) -> str:
    columns = [
        f"{identifier(column.name)} ({column.type.pg_type})" for column in mapping.columns if _is_own(column.type)
    ]
    return f"text in a replica whose database lacks the type: {', '.join(columns)}" if columns else ""


def _is_own(type_: ColumnType) -> bool:
    return type_.base_oid >= _FIRST_OWN_OID


def _inheritance(facts: TableFacts, mapping: EventMapping) -> str:
    name, children = table_name(facts.name), ", ".join(map(table_name, mapping.table.children))
    parts = []
    if facts.parents:
        parts.append(f"inherits from {', '.join(map(table_name, facts.parents))}, whose event does not have its rows")
    if children:
        parts.append(
            f"rows of {children} are not in this event, though a SELECT on {name} shows them: the log has each row"
            " under the table that holds it, so they need an event of their own"
        )
    return "; ".join(parts)


def _row_security(facts: TableFacts) -> str:
    return (
        "row security is on: a snapshot has all rows or fails, so the role needs BYPASSRLS"
        if facts.row_security
        else ""
    )


def _names(columns: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(identifier, columns))
