"""How one value is written as JSON, whatever row it is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import orjson

from transforms import array_text
from transforms.column_type import ColumnType, Form

JSON_SPACE = b" \t\n\r"

_NON_FINITE = frozenset((b"NaN", b"Infinity", b"-Infinity"))
_ESCAPES = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


def json_name(name: str) -> bytes:
    """A field's name as JSON text."""
    return orjson.dumps(name)


def encode_text(value: bytes) -> bytes:
    """A JSON string. Raises UnicodeDecodeError where the value is not UTF-8."""
    return orjson.dumps(str(value, "utf8"))


def value_encoder(type_: ColumnType) -> Callable[[bytes], bytes]:
    """The function that writes one value of a type, spliced JSON apart (see `must_be_quoted`)."""
    if type_.is_json_array:
        return _array_encoder(type_)
    return encode_text if type_.element_oid else _ENCODE[type_.form]


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
    if value[:1] in JSON_SPACE or value[-1:] in JSON_SPACE or (value[:1] == b'"' and b"\\" in value):
        return True
    return has_odd_escape(value)


def has_odd_escape(value: bytes) -> bool:
    """Whether JSON text holds an escape that Postgres' JSON functions refuse: U+0000, or an unpaired surrogate."""
    if b"\\u" not in value:
        return False
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
