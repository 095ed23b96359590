"""Compiled row encoders: from the bytes of a tuple to the JSON bytes of key and state.

For each relation and event one function is made, straight-line code without look-ups, type dispatch or a dict per
row; columns that are not listed are stepped over, so their values never leave this file. Measured against a generic
loop over columns, the compiled form costs a third. What a plain row does not need (values that were not sent, JSON
texts that cannot be spliced in, errors) is left to a careful path that is as slow as it is explicit.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from transforms import array_text, copy_text, tuple_data
from transforms.column_type import ColumnType, Form
from transforms.errors import StatecastError, ValueNotEncodable
from transforms.tuple_data import UNCHANGED, MalformedMessage, Unchanged, Value

_WHOLE_OLD_TUPLE = ord("O")
_NON_FINITE = frozenset((b"NaN", b"Infinity", b"-Infinity"))
_JSON_SPACE = b" \t\n\r"


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


class RelationColumn(NamedTuple):
    """A column as the log sends it, in the log's order."""

    name: str
    type: ColumnType


class Row(NamedTuple):
    """An encoded row: JSON text of its key and state, and the words of the entry's optional fields."""

    key: bytes
    state: bytes
    partial: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowEncoder:
    """The compiled functions for one relation and one event. All raise MalformedMessage and ValueNotEncodable."""

    row: Callable[[bytes, int, int], tuple[bytes, bytes] | Row]
    """`row(data, at, old)`: the tuple at `at`, which must reach to the end of `data`. `old` is the offset of the old
    tuple, or 0; its values stand in for those not sent: all of a whole one (the byte before it is `O`), only the key's
    of a key (`K`), whose other columns are empty. A plain pair (key, state) is the common, full row."""
    key: Callable[[bytes, int], tuple[bytes, int]]
    """`key(data, at)`: the key of the tuple at `at`, and the offset behind the tuple."""
    line: Callable[[bytes], tuple[bytes, bytes] | Row]
    """`line(text)`: the same as `row` for a row in COPY's text format, with its line's end."""


def compile_encoder(relation: Sequence[RelationColumn], columns: Sequence[str], key: Sequence[str]) -> RowEncoder:
    """Make the encoder for rows of `relation`; `columns` and `key` give the fields of state and key in their order.

    Raises KeyError with the name of a column that the relation does not have.
    """
    types = {column.name: column.type for column in relation}
    for name in (*columns, *key):
        types[name]
    careful = _CarefulEncoder(relation, columns, key)
    row = _compile_row(relation, columns, key, careful)
    return RowEncoder(row, _compile_key(relation, key, careful), _compile_line(relation, columns, key, row))


def json_name(name: str) -> bytes:
    """A field's name as JSON text."""
    return orjson.dumps(name)


def encode_text(value: bytes) -> bytes:
    """A JSON string. Raises UnicodeDecodeError where the value is not UTF-8."""
    return orjson.dumps(str(value, "utf8"))


def _timestamp(value: bytes) -> bytes:
    plain = value[10:11] == b" " and value[-1:] != b"C"  # neither infinity, nor five-digit years, nor BC
    return b'"%bT%b"' % (value[:10], value[11:]) if plain else b'"%b"' % value


def _timestamptz(value: bytes) -> bytes:
    plain = value[10:11] == b" " and value[-3:] == b"+00"
    return b'"%bT%bZ"' % (value[:10], value[11:-3]) if plain else b'"%b"' % value


def _json(value: bytes) -> bytes:
    str(value, "utf8")
    return value


_ENCODE: Mapping[Form, Callable[[bytes], bytes]] = {
    Form.NUMBER: bytes,
    Form.FLOAT: lambda value: b'"%b"' % value if value in _NON_FINITE else value,
    Form.BOOLEAN: lambda value: b"true" if value == b"t" else b"false",
    Form.JSON: _json,
    Form.JSONB: _json,
    Form.TIMESTAMP: _timestamp,
    Form.TIMESTAMPTZ: _timestamptz,
    Form.BYTEA: lambda value: b'"\\%b"' % value,
    Form.PLAIN: lambda value: b'"%b"' % value,
    Form.TEXT: encode_text,
}


def _array_encoder(type_: ColumnType) -> Callable[[bytes], bytes]:
    element, delimiter = _ENCODE[type_.form], type_.delimiter

    def encode(value: bytes) -> bytes:
        encoded = array_text.to_json(value, element, delimiter)
        return encode_text(value) if encoded is None else encoded

    return encode


def value_encoder(type_: ColumnType) -> Callable[[bytes], bytes]:
    """The function that writes one value of a type, spliced JSON apart (see `must_be_quoted`)."""
    if type_.is_json_array:
        return _array_encoder(type_)
    return encode_text if type_.element_oid else _ENCODE[type_.form]


_ESCAPES = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def must_be_quoted(value: bytes, form: Form) -> bool:
    """Whether a json or jsonb text must travel as a JSON string that holds it.

    A JSON null would be read as SQL NULL; space around the value would be lost; a string's escapes would be resolved
    (`"\\/"` read as `"/"`); U+0000 and unpaired surrogates are refused by Postgres' JSON functions though the json
    type may hold them.
    """
    if value == b"null":
        return True
    if form is Form.JSONB:
        return False
    if value[:1] in _JSON_SPACE or value[-1:] in _JSON_SPACE or (value[:1] == b'"' and b"\\" in value):
        return True
    return b"\\u" in value and _has_odd_escape(value)


def _has_odd_escape(value: bytes) -> bool:
    high_ends_at = -1  # where the escape of a high surrogate ended, if one just did
    for escape in _ESCAPES.finditer(value):
        code = int(escape[1], 16) if escape[1] else None
        if high_ends_at >= 0:
            if code is None or not 0xDC00 <= code <= 0xDFFF or escape.start() != high_ends_at:
                return True
            high_ends_at = -1
        elif code == 0 or (code is not None and 0xDC00 <= code <= 0xDFFF):
            return True
        elif code is not None and 0xD800 <= code <= 0xDBFF:
            high_ends_at = escape.end()
    return high_ends_at >= 0


class _CarefulEncoder:
    """The same encoding, column by column: for rows that are not plain, and to say what is wrong with one."""

    def __init__(self, relation: Sequence[RelationColumn], columns: Sequence[str], key: Sequence[str]) -> None:
        self.relation = relation
        self.columns = columns
        self.key = key
        self.encoders = {column.name: value_encoder(column.type) for column in relation}
        self.spliced = {
            column.name: column.type.form
            for column in relation
            if not column.type.element_oid and column.type.form in (Form.JSON, Form.JSONB)
        }

    def row(self, data: bytes, at: int, old: int) -> Row:
        values, end = tuple_data.decode(data, at)
        if end != len(data):
            raise MalformedMessage(f"{len(data) - end} bytes are left behind a tuple")
        named = self._named(values)
        if old:
            before = self._named(tuple_data.decode(data, old)[0])
            known = before if data[old - 1] == _WHOLE_OLD_TUPLE else self.key
            named |= {name: before[name] for name in known if named[name] is UNCHANGED}
        fields: list[bytes] = []
        partial: list[str] = []
        quoted: list[str] = []
        for name in self.columns:
            value = named[name]
            if isinstance(value, Unchanged):
                partial.append(name)
                continue
            if value is not None and name in self.spliced and must_be_quoted(value, self.spliced[name]):
                quoted.append(name)
                encoded = encode_text(self._encode(name, value))
            else:
                encoded = self._encode(name, value)
            fields.append(json_name(name) + b":" + encoded)
        return Row(self._key(named), b"{" + b",".join(fields) + b"}", tuple(partial), tuple(quoted))

    def old_key(self, data: bytes, at: int) -> tuple[bytes, int]:
        values, end = tuple_data.decode(data, at)
        return self._key(self._named(values)), end

    def _named(self, values: Sequence[Value]) -> dict[str, Value]:
        if len(values) != len(self.relation):
            raise MalformedMessage(f"a tuple has {len(values)} columns, its relation has {len(self.relation)}")
        return {column.name: value for column, value in zip(self.relation, values, strict=True)}

    def _key(self, named: Mapping[str, Value]) -> bytes:
        fields = []
        for name in self.key:
            value = named[name]
            if isinstance(value, Unchanged):
                raise UnchangedValues([name])
            if value is None:
                raise KeyNotSent(f"the log does not tell column {json.dumps(name)} of a changed row's key")
            if name in self.spliced and value == b"null":
                raise KeyNotSent(f"column {json.dumps(name)} of a key is a JSON null, which reads back as SQL's NULL")
            fields.append(json_name(name) + b":" + self._encode(name, value))
        return b"{" + b",".join(fields) + b"}"

    def _encode(self, name: str, value: bytes | None) -> bytes:
        if value is None:
            return b"null"
        try:
            return self.encoders[name](value)
        except UnicodeDecodeError as error:
            raise ValueNotEncodable(f"a value of column {json.dumps(name)} is not UTF-8") from error


# --- code generation -------------------------------------------------------------------------------------------------

# Each leaves in `v` what is written for the value d[s:at], of `n` bytes. Single bytes are looked at where that decides:
# 32 is a space, 43 a plus sign, 57 the digit 9, 116 a `t`.
_INLINE = {
    Form.NUMBER: "{v} = d[s:at]",
    Form.FLOAT: "{v} = d[s:at] if d[at - 1] <= 57 else b'\"%b\"' % d[s:at]",
    Form.BOOLEAN: "{v} = b'true' if d[s] == 116 else b'false'",
    Form.JSON: "{v} = d[s:at]\n   if {v} == b'null' or b'\\\\u' in {v} or {v}[0] in SPACE_OR_QUOTE or {v}[-1] in SPACE:"
    " return careful(d, start, old)\n   if not {v}.isascii(): str({v}, 'utf8')",
    Form.JSONB: "{v} = d[s:at]\n   if {v} == b'null': return careful(d, start, old)"
    "\n   if not {v}.isascii(): str({v}, 'utf8')",
    Form.TIMESTAMP: "{v} = b'\"%bT%b\"' % (d[s:s + 10], d[s + 11:at])"
    " if n > 18 and d[s + 10] == 32 and d[at - 1] <= 57 else b'\"%b\"' % d[s:at]",
    Form.TIMESTAMPTZ: "{v} = b'\"%bT%bZ\"' % (d[s:s + 10], d[s + 11:at - 3])"
    " if n > 18 and d[s + 10] == 32 and d[at - 3] == 43 else b'\"%b\"' % d[s:at]",
    Form.BYTEA: "{v} = b'\"\\\\%b\"' % d[s:at]",
    Form.PLAIN: "{v} = b'\"%b\"' % d[s:at]",
    Form.TEXT: "{v} = d[s:at]\n   {v} = b'\"%b\"' % {v} if {v}.isalnum() else dumps(str({v}, 'utf8'))",
}


def _read_columns(
    relation: Sequence[RelationColumn], wanted: Mapping[str, int], key: Sequence[str], unusual: str
) -> list[str]:
    """Code that walks over a tuple, leaving the encoded value of each wanted column in `v<number>`.

    What is not plain, a NULL in the key too, goes where `unusual` leads.
    """
    lines = [f"  if U16(d, at)[0] != {len(relation)}: {unusual}", "  at += 2"]
    for place, column in enumerate(relation):
        # Kind and length in one call, where at least five bytes are left whatever the columns hold.
        head = "kind, n = KIND_AND_SIZE(d, at)" if place < len(relation) - 4 else "kind = d[at]"
        size = "n" if place < len(relation) - 4 else "U32(d, at + 1)[0]"
        lines += [f"  {head}", "  if kind == 116:"]
        if column.name not in wanted:
            lines += [f"   at += 5 + {size}", "  elif kind == 110 or kind == 117: at += 1", f"  else: {unusual}"]
            continue
        number = wanted[column.name]
        v = f"v{number}"
        convert = f"{v} = array{number}(d[s:at])" if column.type.element_oid else _INLINE[column.type.form].format(v=v)
        lines += [
            *(["   n = U32(d, at + 1)[0]"] if size != "n" else []),
            "   s = at + 5; at = s + n",
            f"   {convert}",
            *([] if column.name in key else [f"  elif kind == 110: at += 1; {v} = b'null'"]),
            f"  else: {unusual}",
        ]
    return lines


# The same for a value that stands alone in `v`.
_INLINE_ALONE = {
    Form.NUMBER: "",
    Form.FLOAT: "if {v}[-1] > 57: {v} = b'\"%b\"' % {v}",
    Form.BOOLEAN: "{v} = b'true' if {v} == b't' else b'false'",
    Form.JSON: "if {v} == b'null' or {v}[0] in SPACE_OR_QUOTE or {v}[-1] in SPACE: return unusual(text)"
    "\n   if not {v}.isascii(): str({v}, 'utf8')",
    Form.JSONB: "if {v} == b'null': return unusual(text)\n   if not {v}.isascii(): str({v}, 'utf8')",
    Form.TIMESTAMP: "{v} = b'\"%bT%b\"' % ({v}[:10], {v}[11:])"
    " if len({v}) > 18 and {v}[10] == 32 and {v}[-1] <= 57 else b'\"%b\"' % {v}",
    Form.TIMESTAMPTZ: "{v} = b'\"%bT%bZ\"' % ({v}[:10], {v}[11:-3])"
    " if len({v}) > 18 and {v}[10] == 32 and {v}[-3] == 43 else b'\"%b\"' % {v}",
    Form.BYTEA: "return unusual(text)",
    Form.PLAIN: "{v} = b'\"%b\"' % {v}",
    Form.TEXT: "{v} = b'\"%b\"' % {v} if {v}.isalnum() else dumps(str({v}, 'utf8'))",
}


def _compile_line(
    relation: Sequence[RelationColumn],
    columns: Sequence[str],
    key: Sequence[str],
    row: Callable[[bytes, int, int], tuple[bytes, bytes] | Row],
) -> Callable[[bytes], tuple[bytes, bytes] | Row]:
    wanted = {name: number for number, name in enumerate(dict.fromkeys((*columns, *key)))}
    lines = [
        "def line(text):",
        " if text.count(BACKSLASH) != text.count(NULL): return unusual(text)",  # something is escaped
        " try:",
        f"  {''.join(f'c{place},' for place in range(len(relation)))} = text[:-1].split(TAB)",
    ]
    for place, column in enumerate(relation):
        if column.name not in wanted:
            continue
        number = wanted[column.name]
        v = f"v{number}"
        convert = (
            f"{v} = array{number}({v})" if column.type.element_oid else _INLINE_ALONE[column.type.form].format(v=v)
        )
        null = "return unusual(text)" if column.name in key else f"{v} = b'null'"
        lines += [f"  {v} = c{place}", f"  if {v} == NULL: {null}", *([f"  else:\n   {convert}"] if convert else [])]
    lines += [
        f"  return KEY % {_values(key, wanted)}, STATE % {_values(columns, wanted)}",
        " except Cut: return unusual(text)",  # says what is wrong
    ]
    scope = _scope(relation, wanted) | {
        "KEY": _template(key),
        "STATE": _template(columns),
        "BACKSLASH": b"\\",
        "NULL": b"\\N",
        "TAB": b"\t",
        "unusual": lambda text: row(tuple_data.encode(copy_text.values(text)), 0, 0),
    }
    exec("\n".join(lines), scope)
    return scope["line"]  # type: ignore[return-value]


def _template(names: Sequence[str]) -> bytes:
    return b"{" + b",".join(json_name(name).replace(b"%", b"%%") + b":%b" for name in names) + b"}"


def _values(names: Sequence[str], wanted: Mapping[str, int]) -> str:
    return "(" + "".join(f"v{wanted[name]}," for name in names) + ")"


def _scope(relation: Sequence[RelationColumn], wanted: Mapping[str, int]) -> dict[str, object]:
    scope: dict[str, object] = {
        "U16": struct.Struct("!H").unpack_from,
        "U32": struct.Struct("!I").unpack_from,
        "KIND_AND_SIZE": struct.Struct("!BI").unpack_from,
        "Cut": (struct.error, IndexError, ValueError),
        "SPACE": _JSON_SPACE,
        "SPACE_OR_QUOTE": _JSON_SPACE + b'"',
        "dumps": orjson.dumps,
    }
    for column in relation:
        if column.name in wanted and column.type.element_oid:
            scope[f"array{wanted[column.name]}"] = value_encoder(column.type)
    return scope


def _compile_row(
    relation: Sequence[RelationColumn], columns: Sequence[str], key: Sequence[str], careful: _CarefulEncoder
) -> Callable[[bytes, int, int], tuple[bytes, bytes] | Row]:
    wanted = {name: number for number, name in enumerate(dict.fromkeys((*columns, *key)))}
    lines = [
        "def row(d, at, old):",
        " start = at",
        " try:",
        *_read_columns(relation, wanted, key, "return careful(d, start, old)"),
        "  if at != len(d): return careful(d, start, old)",
        f"  return KEY % {_values(key, wanted)}, STATE % {_values(columns, wanted)}",
        " except Cut: return careful(d, start, old)",  # says what is wrong
    ]
    scope = _scope(relation, wanted) | {"KEY": _template(key), "STATE": _template(columns), "careful": careful.row}
    exec("\n".join(lines), scope)
    return scope["row"]  # type: ignore[return-value]


def _compile_key(
    relation: Sequence[RelationColumn], key: Sequence[str], careful: _CarefulEncoder
) -> Callable[[bytes, int], tuple[bytes, int]]:
    wanted = {name: number for number, name in enumerate(key)}
    lines = [
        "def key(d, at):",
        " start, old = at, 0",
        " try:",
        *_read_columns(relation, wanted, key, "return careful(d, start)"),
        "  if at > len(d): return careful(d, start)",
        f"  return KEY % {_values(key, wanted)}, at",
        " except Cut: return careful(d, start)",
    ]
    scope = _scope(relation, wanted) | {"KEY": _template(key), "careful": lambda d, at, _old=0: careful.old_key(d, at)}
    exec("\n".join(lines), scope)
    return scope["key"]  # type: ignore[return-value]
