"""Rows column by column: slower than what is compiled, for any row, and with words for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from transforms import copy_text, tuple_data
from transforms.column_type import Form, RelationColumn
from transforms.errors import StatecastError, ValueNotEncodable
from transforms.row import NULL_JSON, Absent, Field, Row, RowFilter, Undecided
from transforms.tuple_data import UNCHANGED, MalformedMessage, TupleData, Unchanged, Value
from transforms.values import encode_text, json_name, must_be_quoted, value_encoder

WHOLE_OLD_TUPLE: Final = ord("O")


class UnchangedValues(StatecastError):
    """An update left out large values that did not change, and the event may not be published without them."""

    def __init__(self, columns: Sequence[str]) -> None:
        names = ", ".join(columns)
        super().__init__(f"the source did not send the unchanged large values of {names}")
        self.columns = tuple(columns)

    remedy = (
        'Set unchanged_toast = "reread" for the event, or run `ALTER TABLE ... REPLICA IDENTITY FULL` on the table.'
    )


class KeyNotSent(StatecastError):
    """A row's key is not wholly in the log."""

    remedy = "Run `ALTER TABLE ... REPLICA IDENTITY DEFAULT` (or FULL), then `cdc drop`, and start again."


class _Field(NamedTuple):
    place: int
    column: str
    name: str
    label: bytes
    """Its name as JSON text, and a colon."""
    encode: Callable[[bytes], bytes]
    constant: bytes | None
    spliced: Form | None
    """That of json and jsonb."""


class ExplicitEncoder:
    """The encoding column by column."""

    def __init__(
        self,
        relation: Sequence[RelationColumn],
        fields: Sequence[Field],
        key: Sequence[Field],
        filter_: RowFilter | None = None,
    ) -> None:
        """Raises KeyError with the name of a column that the relation does not have."""
        place = {column.name: at for at, column in enumerate(relation)}
        self._width = len(relation)
        self._fields = [_field(place[field.column], relation, field) for field in fields]
        self._key = [_field(place[field.column], relation, field) for field in key]
        self._filter = filter_
        self.judged = tuple(place[name] for name in filter_.columns) if filter_ else ()
        """The places of the filter's columns."""

    def row(self, data: bytes, at: int, old: int) -> Row | Absent | Undecided:
        """See `RowEncoder.row`."""
        values, end = self._decode(data, at)
        if end != len(data):
            raise MalformedMessage(f"{len(data) - end} bytes are left behind a tuple")
        if old and UNCHANGED in values:
            values = self._completed(values, data, old)
        verdict = self._judge(values)
        if verdict is True:
            return self._row(values)
        return (Undecided if verdict is None else Absent)(self._encode_key(values))

    def _row(self, values: TupleData) -> Row:
        parts: list[bytes] = []
        partial: list[str] = []
        quoted: list[str] = []
        for field in self._fields:
            value = values[field.place]
            if isinstance(value, Unchanged) and field.constant is None:
                partial.append(field.name)
                continue
            encoded = _encode(field, value)
            if isinstance(value, bytes) and field.spliced and must_be_quoted(value, field.spliced):
                quoted.append(field.name)
                encoded = encode_text(value)
            parts.append(field.label + encoded)
        return Row(self._encode_key(values), b"{" + b",".join(parts) + b"}", tuple(partial), tuple(quoted))

    def line(self, text: bytes) -> Row | Absent:
        """See `RowEncoder.lines`."""
        row = self.row(tuple_data.encode(copy_text.values(text)), 0, 0)
        assert not isinstance(row, Undecided)  # every value is there
        return row

    def held(self, data: bytes, at: int) -> bool:
        """See `RowEncoder.held`."""
        return self._judge(self._decode(data, at)[0]) is not False

    def old_key(self, data: bytes, at: int) -> tuple[bytes, int]:
        """See `RowEncoder.key`."""
        values, end = self._decode(data, at)
        return self._encode_key(values), end

    def labels(self) -> tuple[tuple[int, bytes], ...]:
        """Place and label of each field of the state."""
        return tuple((field.place, field.label) for field in self._fields)

    def key_labels(self) -> tuple[tuple[int, bytes], ...]:
        """The same of the key."""
        return tuple((field.place, field.label) for field in self._key)

    def _judge(self, values: TupleData) -> bool | None:
        """Whether the filter holds; None: it needs a value that was not sent."""
        if self._filter is None:
            return True
        judged: list[bytes | None] = []
        for value in (values[place] for place in self.judged):
            if isinstance(value, Unchanged):
                return None
            judged.append(value)
        try:
            return self._filter.judge(judged) is True
        except UnicodeDecodeError:
            names = ", ".join(map(json.dumps, self._filter.columns))
            raise ValueNotEncodable(f"a value of column {names}, which `where` judges, is not UTF-8") from None

    def _decode(self, data: bytes, at: int) -> tuple[TupleData, int]:
        values, end = tuple_data.decode(data, at)
        if len(values) != self._width:
            raise MalformedMessage(f"a tuple has {len(values)} columns, its relation has {self._width}")
        return values, end

    def _completed(self, values: TupleData, data: bytes, old: int) -> TupleData:
        """With the old tuple's values where none was sent."""
        before, _ = self._decode(data, old)
        known = range(self._width) if data[old - 1] == WHOLE_OLD_TUPLE else {field.place for field in self._key}
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
                raise KeyNotSent(f"the log does not tell column {json.dumps(field.column)} of a changed row's key")
            if field.spliced and value == b"null":
                raise KeyNotSent(
                    f"column {json.dumps(field.column)} of a key is a JSON null, which reads back as SQL's NULL",
                    remedy="Give the event another key; then `cdc drop`, and start again.",
                )
            parts.append(field.label + _encode(field, value))
        return b"{" + b",".join(parts) + b"}"


def _field(place: int, relation: Sequence[RelationColumn], field: Field) -> _Field:
    type_ = relation[place].type
    is_spliced = field.mask is None and not type_.element_oid and type_.form in (Form.JSON, Form.JSONB)
    return _Field(
        place,
        field.column,
        field.name,
        json_name(field.name) + b":",
        value_encoder(type_) if field.mask is None or isinstance(field.mask, bytes) else field.mask,
        field.mask if isinstance(field.mask, bytes) else None,
        type_.form if is_spliced else None,
    )


def _encode(field: _Field, value: Value) -> bytes:
    """`value` was sent, or the field is constant."""
    if value is None:
        return NULL_JSON
    if isinstance(value, Unchanged) or field.constant is not None:
        assert field.constant is not None
        return field.constant
    try:
        return field.encode(value)
    except UnicodeDecodeError as error:
        raise ValueNotEncodable(f"a value of column {json.dumps(field.column)} is not UTF-8") from error
