"""Names: how tables, events, streams, sinks and slots may be called.

Source of the SQL rules: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Final, Self

IDENTIFIER_MAX_BYTES: Final = 63
"""Postgres cuts longer identifiers off in silence (NAMEDATALEN - 1), so they are refused here."""

PIPELINE_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
"""Also the rule for event types and for streams, which must avoid RESERVED_NAMES too."""
SINK_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
HOOK_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
"""A function of a module."""
SLOT_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")
EVENT_LABEL: Final = re.compile(rf"(?P<type>{EVENT_NAME.pattern})(?:\.v(?P<version>[1-9][0-9]{{0,5}}))?")
"""`customer` or `customer.v2`; without a version, version 1 is meant."""

RESERVED_NAMES: Final = frozenset({"meta", "schema", "status", "requests"})
"""Parts of `<pipeline>:<part>` that are no streams of events."""

_PART = r'(?:[A-Za-z_\u0080-\U0010ffff][\w$\u0080-\U0010ffff]*|"(?:[^"]|"")*")'
_TABLE = re.compile(rf"(?:(?P<schema>{_PART})\.)?(?P<name>{_PART})", re.ASCII)
_SAFE = re.compile(r"[a-z_][a-z0-9_]*")
_FOLD = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

# The words that quote_ident() of PostgreSQL 18 quotes: every keyword that is not "unreserved" in pg_get_keywords().
_KEYWORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast
    char character check coalesce collate collation column concurrently constraint create cross current_catalog
    current_date current_role current_schema current_time current_timestamp current_user dec decimal default deferrable
    desc distinct do else end except exists extract false fetch float for foreign freeze from full grant greatest group
    grouping having ilike in initially inner inout int integer intersect interval into is isnull join json json_array
    json_arrayagg json_exists json_object json_objectagg json_query json_scalar json_serialize json_table json_value
    lateral leading least left like limit localtime localtimestamp merge_action national natural nchar none normalize
    not notnull null nullif numeric offset on only or order out outer overlaps overlay placing position precision
    primary real references returning right row select session_user setof similar smallint some substring symmetric
    system_user table tablesample then time timestamp to trailing treat trim true union unique user using values
    varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists xmlforest
    xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """,
    )
)


def identifier_problem(name: str) -> str | None:
    """Why Postgres could not hold `name` as it is (empty, NUL, too long), or None. The text never holds the name."""
    if not name:
        return "an empty name"
    if "\0" in name:
        return "a name with a NUL character"
    if (size := len(name.encode("utf-8", "surrogatepass"))) > IDENTIFIER_MAX_BYTES:
        return f"a name of {size} bytes (Postgres holds at most {IDENTIFIER_MAX_BYTES})"
    return None


def is_reserved(name: str) -> bool:
    """Whether SQL may read an unquoted `name` as something else than a name."""
    return name in _KEYWORDS


def fold(word: str) -> str:
    """The name that an unquoted word stands for.

    Only ASCII letters fold: that is what Postgres does in UTF-8 and every other multi-byte encoding.
    """
    return word.translate(_FOLD)


def quote_identifier(name: str) -> str:
    """Write `name` so that SQL reads exactly it: quoted only where needed, as Postgres' quote_ident() does."""
    if _SAFE.fullmatch(name) and name not in _KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def event_label(type: str, version: int) -> str:
    """The name of one version of an event type, as entries and schema documents carry it: `customer.v1`."""
    return f"{type}.v{version}"


@dataclass(frozen=True, slots=True)
class TableName:
    """A table's schema and name, exactly as Postgres stores them. Prints as SQL: `public."Order Lines"`.

    Raises ValueError for a part that Postgres cannot hold: empty, with NUL, or longer than 63 bytes.
    """

    schema: str
    name: str

    def __post_init__(self) -> None:
        for part in (self.schema, self.name):
            if (problem := identifier_problem(part)) is not None:
                raise ValueError(f"not a table's name: {problem}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `table` (in the schema public) or `schema.table` as SQL does: unquoted parts fold to lower case.

        Raises ValueError on anything else; the message does not repeat the text.
        """
        parts = _TABLE.fullmatch(text)
        if parts is None:
            raise ValueError('not a table\'s name: expected table or schema.table, like public."Order Lines"')
        return cls(schema=_read(parts["schema"] or "public"), name=_read(parts["name"]))

    def __str__(self) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"


def _read(part: str) -> str:
    return part[1:-1].replace('""', '"') if part.startswith('"') else fold(part)
