"""Rows of one shape: a regular expression finds all values at once, a template puts them where they belong in JSON.

The shape of a row tells for each column whether it holds a value (`t`), NULL (`n`), or nothing because it was not sent
(`u`). One function is compiled for each shape. It answers None for a row of another shape, and for one that holds a
value which needs a closer look (NaN, a year before Christ, a JSON null): the explicit encoder takes those. A walk over
the columns in Python, compiled to straight-line code, takes up to twice the time.

Why it is exact. In a tuple, each value has a head: `t`, and a length that begins with two NULs (values of 64 kB and
more are left to the explicit encoder). Most types' text cannot hold the letters `t`, `n` and `u`, so that it ends where
the next column begins. Other text may hold any byte but NUL: with the `n` of NULLs and the `t` of a head behind it, it
ends before the next NUL. If all columns behind it have values, the number of heads tells that no `n` was among them.
Otherwise a text could swallow the `n` of a NULL, and a later one lose its last letter: there, the lengths are compared.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import orjson

from transforms.column_type import ColumnType, Form, RelationColumn
from transforms.row import NULL_JSON, Field
from transforms.values import JSON_SPACE, json_name, value_encoder

RowResult = tuple[bytes, bytes]
"""Key and state."""
KeyResult = tuple[bytes, int]
"""Key, and the offset behind the tuple."""
TextsResult = tuple[bytes | None, ...]
"""The texts of some values, at least one; None for NULL."""
Result = TypeVar("Result", bound=RowResult | KeyResult | TextsResult)
ShapeEncoder = Callable[[bytes, int], Result | None]
"""From the bytes and an offset."""

VALUE, NULL, UNCHANGED = b"tnu"
_KINDS = frozenset(b"tnu")

_MOST_SHAPES = 32  # of one relation; that of 60 columns takes 10 ms to compile and some 50 kB
SEEN_BEFORE = 3  # rows of a shape that are not worth it


class Plan(NamedTuple):
    """What is wanted of the rows of a relation."""

    relation: Sequence[RelationColumn]
    fields: Sequence[Field]
    """Of the state, in their order."""
    key: Sequence[Field]
    """Those of the key."""

    def suits(self, shape: bytes) -> bool:
        """Whether rows of this shape need no closer look: the key is there, and all that is wanted was sent."""
        if len(shape) != len(self.relation) or not _KINDS.issuperset(shape) or VALUE not in shape:
            return False
        kinds = {column.name: kind for column, kind in zip(self.relation, shape, strict=True)}
        return all(kinds[field.column] == VALUE for field in self.key) and all(
            field.is_constant or kinds[field.column] != UNCHANGED for field in self.fields
        )


class ShapeMemory(Generic[Result]):
    """The compiled encoders of those shapes that are met often."""

    def __init__(self, plan: Plan, compile_: Callable[[Plan, bytes], ShapeEncoder[Result]], seen_before: int) -> None:
        self.latest: ShapeEncoder[Result] = _knows_none
        """That of the row before: most tables' rows are of one shape, or of few that come in runs."""
        self._plan = plan
        self._compile = compile_
        self._seen_before = seen_before
        self._seen: Counter[bytes] = Counter()
        self._encoders: dict[bytes, ShapeEncoder[Result]] = {}

    def encode(self, shape: bytes, data: bytes, at: int) -> Result | None:
        """Encode a row of this shape, which `latest` could not."""
        encoder = self._encoders.get(shape)
        if encoder is None:
            if not self._is_worth_it(shape):
                return None
            encoder = self._encoders[shape] = self._compile(self._plan, shape)
        elif encoder is self.latest:
            return None
        self.latest = encoder
        return encoder(data, at)

    def _is_worth_it(self, shape: bytes) -> bool:
        if len(self._encoders) == _MOST_SHAPES or not self._plan.suits(shape):
            return False
        if len(self._seen) > 64 * _MOST_SHAPES:
            self._seen.clear()
        self._seen[shape] += 1
        return self._seen[shape] > self._seen_before


def _knows_none(_data: bytes, _at: int) -> None:
    return None


class _Form(NamedTuple):
    """How the values of a form are found, and how they are written."""

    pattern: bytes
    """One group or more, each of which fills a place of the template."""
    template: bytes = b"%b"
    convert: str = ""
    """Code that puts the JSON text of `{v}` in its place, or returns None."""


_ANY: Final = b""  # text: what ends it depends on the framing
_IS_UTF8 = " if not {v}.isascii(): str({v}, 'utf8')"
_FORMS = {
    Form.NUMBER: _Form(rb"([0-9-]++)"),
    Form.FLOAT: _Form(rb"([0-9.e+-]++)"),
    Form.BOOLEAN: _Form(rb"([tf])", convert=" {v} = BOOLEAN[{v}]"),
    Form.TIMESTAMP: _Form(rb"([0-9-]{10}) ([0-9:.]++)", b'"%bT%b"'),
    Form.TIMESTAMPTZ: _Form(rb"([0-9-]{10}) ([0-9:.]++)\+00", b'"%bT%bZ"'),
    # `N` stands before the new tuple of an update.
    Form.PLAIN: _Form(rb"([^\0\t\nNntu\\]*+)", b'"%b"'),
    Form.BYTEA: _Form(_ANY, b'"\\%b"'),
    Form.JSON: _Form(
        _ANY,
        convert=" if {v} == b'null' or b'\\\\u' in {v} or {v}[0] in SPACE_OR_QUOTE or {v}[-1] in SPACE: return None\n"
        + _IS_UTF8,
    ),
    Form.JSONB: _Form(_ANY, convert=" if {v} == b'null': return None\n" + _IS_UTF8),
    Form.TEXT: _Form(_ANY, convert=" {v} = b'\"%b\"' % {v} if {v}.isalnum() else dumps(str({v}, 'utf8'))"),
}
_UUID_OID = 2950
_ARRAY = _Form(_ANY, convert=" {v} = array_{v}({v})")
_MASKED = _Form(_ANY)
_TEXT_OF_MANY = _Form(_ANY, b'"%b"')
_MANY = 3  # from so many texts in a row on, they are escaped all in one go


def _form(type_: ColumnType) -> _Form:
    return _ARRAY if type_.element_oid else _FORMS[type_.form]


def raw(column: str) -> Field:
    """A field that is the text itself; see `texts_encoder`."""
    return Field(column, column, bytes)


class _Wanted(NamedTuple):
    """A column of a shape that holds a value which is wanted."""

    column: RelationColumn
    mask: Callable[[bytes], bytes] | None
    form: _Form
    variables: tuple[str, ...]
    """One for each group."""


class _Shape:
    """What is known of a shape before its framing is."""

    def __init__(self, plan: Plan, shape: bytes) -> None:
        self.relation, self.state, self.key = plan
        self.shape = shape
        masks = {field.column: field.mask for field in (*self.state, *self.key) if not field.is_constant}
        sent = [
            (place, column)
            for place, (column, kind) in enumerate(zip(self.relation, shape, strict=True))
            if kind == VALUE and column.name in masks
        ]
        texts = [
            column.name for _, column in sent if not masks[column.name] and _form(column.type) is _FORMS[Form.TEXT]
        ]
        self.texts_of_many = texts if len(texts) >= _MANY else []
        self.wanted: dict[str, _Wanted] = {}
        for place, column in sent:
            mask = masks[column.name]
            assert not isinstance(mask, bytes)
            form = _TEXT_OF_MANY if column.name in self.texts_of_many else _MASKED if mask else _form(column.type)
            variables = ("v{}", "w{}")[: form.template.count(b"%b")]
            names = tuple(name.format(place) for name in variables)
            self.wanted[column.name] = _Wanted(column, None if mask is bytes else mask, form, names)
        self._is_null = {column.name: kind == NULL for column, kind in zip(self.relation, shape, strict=True)}

    def key_and_state(self) -> str:
        """Code for them."""
        return f"KEY % {self.arguments(self.key)}, STATE % {self.arguments(self.state)}"

    def conversions(self) -> list[str]:
        lines = [
            f" {one.variables[0]} = mask_{one.variables[0]}({one.variables[0]})"
            if one.mask
            else one.form.convert.format(v=one.variables[0])
            for one in self.wanted.values()
        ]
        if self.texts_of_many:
            texts = "".join(f"{self.wanted[name].variables[0]}," for name in self.texts_of_many)
            lines.append(f" {texts} = dumps(str(SEPARATOR.join(({texts})), 'utf8'))[1:-1].split(ESCAPED_SEPARATOR)")
        return [line for line in lines if line]

    def template(self, fields: Sequence[Field]) -> bytes:
        pairs = (json_name(field.name).replace(b"%", b"%%") + b":" + self._value(field) for field in fields)
        return b"{" + b",".join(pairs) + b"}"

    def _value(self, field: Field) -> bytes:
        if field.column in self.wanted:
            return self.wanted[field.column].form.template
        if isinstance(field.mask, bytes) and not self._is_null[field.column]:
            return field.mask.replace(b"%", b"%%")
        return NULL_JSON

    def arguments(self, fields: Sequence[Field]) -> str:
        wanted = (self.wanted[field.column] for field in fields if field.column in self.wanted)
        return "(" + "".join(f"{name}," for one in wanted for name in one.variables) + ")"

    def texts(self) -> str:
        """Code for the texts of all fields, which are raw."""
        names = (field.column for field in self.state)
        return "".join(f"{self.wanted[name].variables[0] if name in self.wanted else None}," for name in names)

    def function(
        self, find: Callable[..., object], groups: Sequence[str], checks: Sequence[str], result: str
    ) -> Callable[[bytes, int], Any]:
        """`find` gives a match whose groups have these names."""
        lines = [
            "def encode(data, at):",
            " match = find(data, at)",
            " if match is None: return None",
            f" {''.join(f'{name},' for name in groups)} = match.groups()" if groups else "",
            *checks,
            " try:",
            *(" " + line.replace("\n", "\n ") for line in self.conversions()),
            f"  return {result}",
            " except (ValueError, IndexError): return None",  # not UTF-8, no JSON, or a text holds what separates them
        ]
        scope: dict[str, object] = {
            "find": find,
            "KEY": self.template(self.key),
            "STATE": self.template(self.state),
            "SIZE": struct.Struct("!H").unpack,
            "BOOLEAN": {b"t": b"true", b"f": b"false"},
            "SPACE": JSON_SPACE,
            "SPACE_OR_QUOTE": JSON_SPACE + b'"',
            "BACKSLASH": b"\\",
            "SEPARATOR": b"\1",
            "ESCAPED_SEPARATOR": b"\\u0001",
            "dumps": orjson.dumps,
        }
        for one in self.wanted.values():
            if one.mask:
                scope[f"mask_{one.variables[0]}"] = one.mask
            elif one.form is _ARRAY:
                scope[f"array_{one.variables[0]}"] = value_encoder(one.column.type)
        exec("\n".join(lines), scope)
        return cast("Callable[[bytes, int], Any]", scope["encode"])


def row_encoder(plan: Plan, shape: bytes) -> ShapeEncoder[RowResult]:
    """For a tuple of a regular shape that reaches to the end of the data."""
    of = _Shape(plan, shape)
    pattern, groups, checks = _tuple_pattern(of)
    return of.function(re.compile(pattern, re.DOTALL).fullmatch, groups, checks, of.key_and_state())


def texts_encoder(plan: Plan, shape: bytes) -> ShapeEncoder[TextsResult]:
    """The same, for fields that are raw and no key."""
    of = _Shape(plan, shape)
    pattern, groups, checks = _tuple_pattern(of)
    return of.function(re.compile(pattern, re.DOTALL).fullmatch, groups, checks, of.texts())


def key_encoder(plan: Plan, shape: bytes) -> ShapeEncoder[KeyResult]:
    """For a tuple of a regular shape, behind which the data end or a new tuple (`N`) begins."""
    of = _Shape(plan, shape)
    pattern, groups, checks = _tuple_pattern(of, all_texts=True)
    result = f"KEY % {of.arguments(of.key)}, match.end()"
    return of.function(re.compile(pattern + rb"(?=N|\Z)", re.DOTALL).match, groups, checks, result)


def line_encoder(plan: Plan, shape: bytes) -> ShapeEncoder[RowResult]:
    """For a line of COPY's text format, with its end; one that holds an escape (bytea's apart) is left alone."""
    of = _Shape(plan, shape)
    return _line_function(of, of.key_and_state())


def line_texts_encoder(plan: Plan, shape: bytes) -> ShapeEncoder[TextsResult]:
    """The same, for fields that are raw and no key."""
    of = _Shape(plan, shape)
    return _line_function(of, of.texts())


def _line_function(of: _Shape, result: str) -> Callable[[bytes, int], Any]:
    parts: list[bytes] = []
    groups: list[str] = []
    backslashes = 0
    for place, (column, kind) in enumerate(zip(of.relation, of.shape, strict=True)):
        if kind == NULL:
            parts.append(rb"\\N")
            backslashes += 1
            continue
        form, wanted = _form(column.type), of.wanted.get(column.name)
        value = rb"([^\t]*+)" if place < len(of.shape) - 1 else rb"([^\n]*+)"
        if form is _FORMS[Form.BYTEA]:
            value = rb"\\(?=\\)" + value
            backslashes += 2
        elif form.pattern and form is not _FORMS[Form.PLAIN] and not (wanted and wanted.form is _MASKED):
            value = form.pattern
        groups += wanted.variables if wanted else ()
        parts.append(value if wanted else _without_groups(value))
    find = re.compile(b"\t".join(parts) + b"\n", re.DOTALL).fullmatch
    checks = [f" if data.count(BACKSLASH) != {backslashes}: return None"]
    return of.function(find, groups, checks, result)


def _tuple_pattern(of: _Shape, *, all_texts: bool = False) -> tuple[bytes, list[str], list[str]]:
    """The pattern, the names of its groups, and code that compares lengths where that decides.

    That of the last value always is compared, so that data which are cut short are seen.
    """
    last = of.shape.rindex(VALUE)
    uncertain = len(of.shape) if all_texts else max(of.shape.rfind(NULL), of.shape.rfind(UNCHANGED))
    parts = [b"".join(re.escape(bytes([byte])) for byte in struct.pack("!H", len(of.relation)))]
    groups: list[str] = []
    checks: list[str] = []
    for place, (column, kind) in enumerate(zip(of.relation, of.shape, strict=True)):
        if kind != VALUE:
            parts.append(bytes([kind]))
            continue
        field = of.wanted.get(column.name)
        pattern = field.form.pattern if field else _form(column.type).pattern
        is_text = not pattern
        value = pattern or rb"([^\0]*)"
        if not field:
            value = _without_groups(value)
        if column.type.base_oid == _UUID_OID and place != last:  # faster than to look at each letter
            groups += field.variables if field else ()
            parts.append(rb"t\0\0\0\x24" + (b"(.{36})" if field else b".{36}"))  # 0x24 is its length
        elif place == last or (is_text and place < uncertain):
            groups.append(f"size{place}")
            first = len(groups)
            parts.append(rb"t\0\0(..)" + value)
            if field and len(field.variables) == 1:
                groups += field.variables
                size = f"len({field.variables[0]})"
            else:  # an empty group marks the value's end
                groups += [*(field.variables if field else ()), f"end{place}"]
                parts.append(b"()")
                size = f"match.end({len(groups)}) - match.end({first})"
            checks.append(f" if SIZE(size{place})[0] != {size}: return None")
        else:
            groups += field.variables if field else ()
            parts.append(rb"t\0\0.." + value)
    return b"".join(parts), groups, checks


def _without_groups(pattern: bytes) -> bytes:
    return re.sub(rb"\((?!\?)", b"(?:", pattern)
