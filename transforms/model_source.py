"""Python source of typed models of events' states, for consumers: importable with pydantic 2 alone.

Written as `ruff format` would leave it, so that it can be committed beside hand-written code.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from transforms.model_names import class_name, field_names
from transforms.schema import SchemaDocument
from transforms.schema_columns import EmbedSchema, SchemaColumn
from transforms.type_text import TypeText

LINE_LENGTH: Final = 88
"""ruff's default."""

_HEAD = '''"""What events of {pipeline} hold, as pydantic models.

Written by `cdc schema --format python`: write it again rather than edit it.

Each class reads the field `state` of an entry: `X.model_validate_json(state)`.
Where an entry has `partial`, its state lacks the fields that are named there: take
them from the state before. A json or jsonb field that is named in `quoted` is a str
that holds the JSON text. Fields that a later revision adds are ignored.
"""
'''


class _Alias(NamedTuple):
    """A type that fields are annotated with, defined in the module itself."""

    name: str
    definition: str
    told: str
    imports: frozenset[str]


def _lenient(name: str, type_: str, told: str) -> _Alias:
    module = "datetime"
    definition = f'Annotated[{module}.{type_} | str, Field(union_mode="left_to_right")]'
    return _Alias(name, definition, told, frozenset({module}))


_NO_SUCH = "A str where Python has no such value: infinity, BC, a year beyond 9999."
_ALIASES: Final = {
    alias.name: alias
    for alias in (
        _Alias(
            "Numeric",
            "Annotated[Decimal, Field(allow_inf_nan=True)]",
            "Exact; may be NaN or an infinity.",
            frozenset({"Decimal"}),
        ),
        _lenient("Timestamp", "datetime", _NO_SUCH),
        _lenient("Date", "date", _NO_SUCH),
        _lenient("Time", "time", "A str where Python has no such value: 24:00:00."),
        _Alias(
            "Array",
            'Annotated[\n    list[Item | None] | list[Any] | str, Field(union_mode="left_to_right")\n]',
            "Nested lists for more dimensions; a str where lower bounds are not 1.",
            frozenset({"TypeVar", "Any"}),
        ),
    )
}
_TYPES: Final = {
    "smallint": "int",
    "integer": "int",
    "bigint": "int",
    "oid": "int",
    "real": "float",
    "double precision": "float",
    "boolean": "bool",
    "numeric": "Numeric",
    "json": "Any",
    "jsonb": "Any",
    "timestamp with time zone": "Timestamp",
    "timestamp without time zone": "Timestamp",
    "date": "Date",
    "time without time zone": "Time",
    "uuid": "UUID",
}
"""By the type's name without modifier. All others are str."""
_MODULE_NAMES = {*_ALIASES, *("Annotated", "Any", "BaseModel", "ConfigDict", "Decimal", "Field", "Item", "State")} | {
    "TypeAlias",
    "TypeVar",
    "UUID",
    "datetime",
}


def models(pipeline: str, documents: Sequence[SchemaDocument]) -> str:
    """A module with a class for each document, behind those of its related rows."""
    module = _Module()
    classes = "".join(f"\n\n{text}" for document in documents for text in module.event(document))
    return _HEAD.format(pipeline=pipeline) + module.preamble() + classes


class _Module:
    """What is written, and what that needs."""

    def __init__(self) -> None:
        self._classes: set[str] = set(_MODULE_NAMES)
        self._aliases: set[str] = set()
        self._imports: set[str] = set()

    def event(self, document: SchemaDocument) -> list[str]:
        """The classes of an event, its own the last."""
        name = class_name(document.label, self._classes)
        self._classes.add(name)
        key = ", ".join(map(_printable, document.key))
        told = f"The state of {document.label}, revision {document.rev}. Key: {key}."
        return self._class(name, told, document.columns, document.later_names)

    def _class(self, name: str, told: str, columns: Sequence[SchemaColumn], later: Collection[str]) -> list[str]:
        before: list[str] = []
        fields = ""
        names = field_names([column.name for column in columns], self._classes)
        for column, field in zip(columns, names, strict=True):
            type_, defaults = self._annotation(column, name, before), []
            if column.name in later:
                defaults.append("default=None")
                type_ = type_ if column.nullable or type_ == "Any" else f"{type_} | None"
            if field != column.name:
                defaults.append(f"alias={_literal(column.name)}")
            fields += self._field(field, type_, defaults, _told(column))
        return [*before, f'class {name}(State):\n    """{told}"""\n\n{fields}']

    def _annotation(self, column: SchemaColumn, owner: str, before: list[str]) -> str:
        """A field's type; the classes of related rows go to `before`."""
        if column.masked == "null":
            return "None"
        type_ = self._rows(column.embed, owner, column.name, before) if column.embed else self._type(column.base_type)
        return f"{type_} | None" if column.nullable and type_ != "Any" else type_

    def _rows(self, embed: EmbedSchema, owner: str, name: str, before: list[str]) -> str:
        row = class_name(f"{owner}_{name}", self._classes)
        self._classes.add(row)
        later = [column.name for column in embed.columns if column.nullable]
        before += self._class(row, f"Related rows: {_printable(name)} of {owner}.", embed.columns, later)
        return f"list[{row}]" if embed.many else row

    def _type(self, base_type: str) -> str:
        type_ = TypeText.of(base_type)
        python = "Any" if type_.is_array and type_.is_own else _TYPES.get(type_.name, "str")
        for name in (python, *(["Array"] if type_.is_array else [])):
            if name in _ALIASES:
                self._aliases.add(name)
            elif name in ("Any", "UUID"):
                self._imports.add(name)
        return f"Array[{python}]" if type_.is_array else python

    def _field(self, name: str, type_: str, defaults: Sequence[str], told: str) -> str:
        """One field, as `ruff format` breaks its line."""
        line = f"    {name}: {type_}"
        if defaults == ["default=None"]:
            line += " = None"
        elif defaults:
            self._imports.add("Field")
            line += f" = Field({', '.join(defaults)})"
        if len(f"{line}  # {told}") <= LINE_LENGTH:
            return f"{line}  # {told}\n"
        start, call, arguments = line.partition(" = Field(")
        if len(line) > LINE_LENGTH and call and len(start + call) <= LINE_LENGTH:
            indented = f"        {arguments[:-1]}"
            if len(indented) > LINE_LENGTH:
                indented = "".join(f"        {each},\n" for each in defaults).rstrip("\n")
            line = f"{start}{call}\n{indented}\n    )"
        elif len(line) > LINE_LENGTH:
            line += "  # fmt: skip"
        return f"    # {told}\n{line}\n"

    def preamble(self) -> str:
        """Imports and the types that the classes use."""
        aliases = [alias for name, alias in _ALIASES.items() if name in self._aliases]
        used = self._imports.union(*(alias.imports for alias in aliases))
        if aliases:
            used |= {"Annotated", "TypeAlias", "Field"}
        return "".join([*_imports(used), *_definitions(aliases)]) + _BASE


_BASE = '''

class State(BaseModel):
    """What all states have in common."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())
'''


def _imports(used: Collection[str]) -> Iterator[str]:
    yield "\n"
    if "datetime" in used:
        yield "import datetime\n"
    if "Decimal" in used:
        yield "from decimal import Decimal\n"
    typing = [name for name in ("Annotated", "Any", "TypeAlias", "TypeVar") if name in used]
    if typing:
        yield f"from typing import {', '.join(typing)}\n"
    if "UUID" in used:
        yield "from uuid import UUID\n"
    if {"datetime", "Decimal", "UUID", *typing} & {*used}:
        yield "\n"
    yield f"from pydantic import BaseModel, ConfigDict{', Field' if 'Field' in used else ''}\n"


def _definitions(aliases: Sequence[_Alias]) -> Iterator[str]:
    if not aliases:
        return
    yield "\n"
    for alias in aliases:
        if alias.name == "Array":
            yield 'Item = TypeVar("Item")\n'
        line = f"{alias.name}: TypeAlias = {alias.definition}"
        if "\n" not in line and len(line) > LINE_LENGTH:
            line = line.replace("Annotated[", "Annotated[\n    ", 1)[:-1] + "\n]"
        yield f'{line}\n"""{alias.told}"""\n'


def _told(column: SchemaColumn) -> str:
    told = "related rows" if column.embed else _printable(column.pg_type)
    return f"{told}, masked: {column.masked}" if column.masked else told


def _printable(text: str) -> str:
    """A name inside a comment or docstring, which it cannot end."""
    return "".join(each if each.isprintable() and each not in '"\\' else "?" for each in text)


def _literal(text: str) -> str:
    """A str literal, in the quotes that `ruff format` chooses."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = (each if each.isprintable() and each != "\\" else repr(each)[1:-1] for each in text)
    return quote + "".join(f"\\{each}" if each == quote else each for each in escaped) + quote
