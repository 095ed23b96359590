"""Row encoders: from the bytes of a tuple to the JSON bytes of key and state.

Common rows are encoded by compiled C (`_rows.c`); where that is not there, rows of a shape that is met often by a
function made for it (`transforms.shapes`). All others (values that were not sent, values that cannot be written as
they are, errors) take the explicit way, column by column, which is slower and says what is wrong. Columns that are not
listed are stepped over: their values never leave these files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from transforms import accelerator, copy_text, shapes, tuple_data
from transforms.column_type import Form, RelationColumn
from transforms.errors import StatecastError, ValueNotEncodable
from transforms.shapes import Plan, ShapeMemory
from transforms.tuple_data import UNCHANGED, MalformedMessage, TupleData, Unchanged, Value
from transforms.values import encode_text, json_name, must_be_quoted, value_encoder

COMPILED: Final = accelerator.load("transforms._rows")
FOUND_ITEMS: Final[Callable[..., tuple[list[bytes], int]] | None] = COMPILED and COMPILED.found
"""Items of many encoded rows at once, where compiled code is there."""

_WHOLE_OLD_TUPLE = ord("O")
_LETTERS = {
    Form.NUMBER: b"n",
    Form.FLOAT: b"f",
    Form.BOOLEAN: b"b",
    Form.JSON: b"j",
    Form.JSONB: b"J",
    Form.TIMESTAMP: b"t",
    Form.TIMESTAMPTZ: b"z",
    Form.BYTEA: b"x",
    Form.PLAIN: b"p",
    Form.TEXT: b"s",
}
"""What `_rows.c` calls the forms."""


class UnchangedValues(StatecastError):
    """An update left out large values that did not change, and the event may not be published without them."""

    def __init__(self, columns: Sequence[str]) -> None:
        names = ", ".join(columns)
        super().__init__(f"the source did not send the unchanged large values of {names}")
        self.columns = tuple(columns)

    remedy = (
        'Run `ALTER TABLE ... REPLICA IDENTITY FULL` on the table, or set unchanged_toast = "partial" for the event.'
    )


class KeyNotSent(StatecastError):
    """A row's key is not wholly in the log."""

    remedy = "Run `ALTER TABLE ... REPLICA IDENTITY DEFAULT` (or FULL), then `cdc drop`, and start again."


class Row(NamedTuple):
    """An encoded row: JSON text of its key and state, and the words of the entry's optional fields."""

    key: bytes
    state: bytes
    partial: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """The encoding functions for one relation and one event. All raise MalformedMessage and ValueNotEncodable."""

    row: Callable[[bytes, int, int], tuple[bytes, bytes] | Row]
    """`row(data, at, old)`: the tuple at `at`, which must reach to the end of `data`. `old` is the offset of the old
    tuple, or 0; its values stand in for those not sent: all of a whole one (the byte before it is `O`), only the key's
    of a key (`K`), whose other columns are empty. A plain pair (key, state) is the common, full row."""
    key: Callable[[bytes, int], tuple[bytes, int]]
    """`key(data, at)`: the key of the tuple at `at`, and the offset behind the tuple."""
    lines: Callable[[list[bytes]], list[tuple[bytes, bytes] | Row]]
    """`lines(texts)`: the same as `row` for rows in COPY's text format, each with its line's end."""
    upserts: Callable[..., tuple[list[bytes], int]] | None = None
    """Items of many frames at once, where compiled code is there: `Plan.upserts` in `_items.c`."""
    transactions: Callable[..., tuple[list[bytes], int, list[int], int, int, int] | None] | None = None
    """The same of whole transactions: `Plan.transactions`."""


def compile_encoder(relation: Sequence[RelationColumn], columns: Sequence[str], key: Sequence[str]) -> RowEncoder:
    """Make the encoder for rows of `relation`; `columns` and `key` give the fields of state and key in their order.

    Raises KeyError with the name of a column that the relation does not have.
    """
    return (compiled_encoder if COMPILED else shaped_encoder)(relation, columns, key)


def compiled_encoder(relation: Sequence[RelationColumn], columns: Sequence[str], key: Sequence[str]) -> RowEncoder:
    """The encoder that runs in C where a row is common."""
    explicit = _ExplicitEncoder(relation, columns, key)
    made: Any = COMPILED.Plan(
        tuple(value_encoder(type_) if type_.element_oid else _LETTERS[type_.form] for _, type_ in relation),
        explicit.labels(columns),
        explicit.labels(key),
    )
    encoded_row, encoded_key, encoded_lines = made.row, made.key, made.lines

    def encode_row(data: bytes, at: int, old: int) -> tuple[bytes, bytes] | Row:
        return encoded_row(data, at) or explicit.row(data, at, old)

    def encode_key(data: bytes, at: int) -> tuple[bytes, int]:
        return encoded_key(data, at) or explicit.old_key(data, at)

    def encode_lines(texts: list[bytes]) -> list[tuple[bytes, bytes] | Row]:
        rows: list[tuple[bytes, bytes] | Row] = encoded_lines(texts, 0)
        while len(rows) < len(texts):
            rows.append(explicit.line(texts[len(rows)]))
            rows += encoded_lines(texts, len(rows))
        return rows

    return RowEncoder(encode_row, encode_key, encode_lines, made.upserts, made.transactions)


def shaped_encoder(
    relation: Sequence[RelationColumn],
    columns: Sequence[str],
    key: Sequence[str],
    *,
    seen_before: int = shapes.SEEN_BEFORE,
) -> RowEncoder:
    """The encoder in Python: a function is made for each shape that has been met `seen_before` times."""
    explicit = _ExplicitEncoder(relation, columns, key)
    plan = Plan(relation, columns, key)
    rows = ShapeMemory(plan, shapes.row_encoder, seen_before)
    keys = ShapeMemory(Plan(relation, (), key), shapes.key_encoder, seen_before)
    lines = ShapeMemory(plan, shapes.line_encoder, seen_before)

    def encode_row(data: bytes, at: int, old: int) -> tuple[bytes, bytes] | Row:
        return rows.latest(data, at) or unusual_row(data, at, old)

    def unusual_row(data: bytes, at: int, old: int) -> tuple[bytes, bytes] | Row:
        return rows.encode(tuple_data.kinds(data, at), data, at) or explicit.row(data, at, old)

    def encode_key(data: bytes, at: int) -> tuple[bytes, int]:
        return keys.latest(data, at) or keys.encode(tuple_data.kinds(data, at), data, at) or explicit.old_key(data, at)

    def encode_line(text: bytes) -> tuple[bytes, bytes] | Row:
        return lines.latest(text, 0) or lines.encode(copy_text.kinds(text), text, 0) or explicit.line(text)

    def encode_lines(texts: list[bytes]) -> list[tuple[bytes, bytes] | Row]:
        return [encode_line(text) for text in texts]

    return RowEncoder(encode_row, encode_key, encode_lines)


class _Field(NamedTuple):
    place: int
    name: str
    label: bytes
    """Its name as JSON text, and a colon."""
    encode: Callable[[bytes], bytes]
    spliced: Form | None
    """That of json and jsonb."""


class _ExplicitEncoder:
    """The encoding column by column."""

    def __init__(self, relation: Sequence[RelationColumn], columns: Sequence[str], key: Sequence[str]) -> None:
        self._by_name = {column.name: self._field(place, column) for place, column in enumerate(relation)}
        self._width = len(relation)
        self._fields = [self._by_name[name] for name in columns]
        self._key = [self._by_name[name] for name in key]

    @staticmethod
    def _field(place: int, column: RelationColumn) -> _Field:
        is_spliced = not column.type.element_oid and column.type.form in (Form.JSON, Form.JSONB)
        spliced = column.type.form if is_spliced else None
        return _Field(place, column.name, json_name(column.name) + b":", value_encoder(column.type), spliced)

    def row(self, data: bytes, at: int, old: int) -> Row:
        values, end = self._decode(data, at)
        if end != len(data):
            raise MalformedMessage(f"{len(data) - end} bytes are left behind a tuple")
        if old and UNCHANGED in values:
            values = self._completed(values, data, old)
        parts: list[bytes] = []
        partial: list[str] = []
        quoted: list[str] = []
        for field in self._fields:
            value = values[field.place]
            if isinstance(value, Unchanged):
                partial.append(field.name)
                continue
            encoded = _encode(field, value)
            if value is not None and field.spliced and must_be_quoted(value, field.spliced):
                quoted.append(field.name)
                encoded = encode_text(value)
            parts.append(field.label + encoded)
        return Row(self._encode_key(values), b"{" + b",".join(parts) + b"}", tuple(partial), tuple(quoted))

    def line(self, text: bytes) -> Row:
        return self.row(tuple_data.encode(copy_text.values(text)), 0, 0)

    def labels(self, columns: Sequence[str]) -> tuple[tuple[int, bytes], ...]:
        """Place and label of each of these columns."""
        return tuple((field.place, field.label) for field in map(self._by_name.__getitem__, columns))

    def old_key(self, data: bytes, at: int) -> tuple[bytes, int]:
        values, end = self._decode(data, at)
        return self._encode_key(values), end

    def _decode(self, data: bytes, at: int) -> tuple[TupleData, int]:
        values, end = tuple_data.decode(data, at)
        if len(values) != self._width:
            raise MalformedMessage(f"a tuple has {len(values)} columns, its relation has {self._width}")
        return values, end

    def _completed(self, values: TupleData, data: bytes, old: int) -> TupleData:
        """With the old tuple's values where none was sent."""
        before, _ = self._decode(data, old)
        known = range(self._width) if data[old - 1] == _WHOLE_OLD_TUPLE else {field.place for field in self._key}
        return tuple(
            before[place] if value is UNCHANGED and place in known else value for place, value in enumerate(values)
        )

    def _encode_key(self, values: Sequence[Value]) -> bytes:
        parts = []
        for field in self._key:
            value = values[field.place]
            if isinstance(value, Unchanged):
                raise UnchangedValues([field.name])
            if value is None:
                raise KeyNotSent(f"the log does not tell column {json.dumps(field.name)} of a changed row's key")
            if field.spliced and value == b"null":
                raise KeyNotSent(
                    f"column {json.dumps(field.name)} of a key is a JSON null, which reads back as SQL's NULL",
                    remedy="Give the event another key; then `cdc drop`, and start again.",
                )
            parts.append(field.label + _encode(field, value))
        return b"{" + b",".join(parts) + b"}"


def _encode(field: _Field, value: bytes | None) -> bytes:
    if value is None:
        return b"null"
    try:
        return field.encode(value)
    except UnicodeDecodeError as error:
        raise ValueNotEncodable(f"a value of column {json.dumps(field.name)} is not UTF-8") from error
