"""How a Postgres type is written as JSON: which of few forms its text takes.

A value stays the bytes of Postgres' own text form; a form only says what stands around those bytes. The reader
pins the session settings on which text forms depend (ISO dates, UTC, hex bytea ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple


class Form(Enum):
    """The JSON form of a type's text."""

    NUMBER = "number"  # all digits, as they are
    FLOAT = "float"  # a number, but NaN and the infinities are strings
    BOOLEAN = "boolean"
    JSON = "json"  # spliced in, never parsed
    JSONB = "jsonb"  # the same; Postgres has already refused what json lets through
    TIMESTAMP = "timestamp"  # RFC 3339 without a zone
    TIMESTAMPTZ = "timestamptz"  # RFC 3339 in UTC
    BYTEA = "bytea"  # a string: \x and hex digits
    PLAIN = "plain"  # a string whose text never needs an escape
    TEXT = "text"  # any other string


# Type OIDs below 10,000 are fixed for ever: src/include/catalog/pg_type.dat
_FORMS = {
    16: Form.BOOLEAN,
    17: Form.BYTEA,
    20: Form.NUMBER,  # int8
    21: Form.NUMBER,  # int2
    23: Form.NUMBER,  # int4
    26: Form.NUMBER,  # oid
    114: Form.JSON,
    700: Form.FLOAT,
    701: Form.FLOAT,
    1114: Form.TIMESTAMP,
    1184: Form.TIMESTAMPTZ,
    3802: Form.JSONB,
    **dict.fromkeys(
        # tid xid cid cidr macaddr8 money macaddr inet date time interval timetz bit varbit numeric uuid pg_lsn xid8
        (27, 28, 29, 650, 774, 790, 829, 869, 1082, 1083, 1186, 1266, 1560, 1562, 1700, 2950, 3220, 5069),
        Form.PLAIN,
    ),
}


def form_of(base_oid: int) -> Form:
    """The form of a type that is neither a domain nor an array. A type that is not known is text."""
    return _FORMS.get(base_oid, Form.TEXT)


BUILT_IN: Final = "pg_catalog"


@dataclass(frozen=True, slots=True)
class ColumnType:
    """What the catalog says of a column's type, with domains resolved to what they stand on."""

    pg_type: str
    """As `format_type` prints the declared type: `numeric(10,2)`, `shop.status`."""
    base_type: str
    """The same with domains resolved; equal to `pg_type` for all else."""
    base_oid: int
    element_oid: int = 0
    """The base OID of an array's elements; 0 when this is not an array."""
    delimiter: bytes = b","
    """What stands between an array's elements (`;` for box)."""
    is_enum: bool = False
    operators: str = BUILT_IN
    """The schema of its own `=`, `<` and `>`."""

    @property
    def form(self) -> Form:
        """The form of a value, or of an element where this is an array."""
        return form_of(self.element_oid or self.base_oid)

    @property
    def is_json_array(self) -> bool:
        """Whether a value becomes a JSON array: arrays do, but for those of json and jsonb, which stay text."""
        return self.element_oid != 0 and self.form not in (Form.JSON, Form.JSONB)


TEXT_TYPE: Final = ColumnType("text", "text", 25)


class RelationColumn(NamedTuple):
    """A column as the log sends it, in the log's order."""

    name: str
    type: ColumnType
