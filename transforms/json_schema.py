"""JSON Schema (draft 2020-12) of what an event publishes: its states and keys, in the forms of the wire format.

Other fields than those that are named may come: a later revision has more. So nothing forbids them, and a field that
came with a later revision is not required, for entries of earlier ones lack it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from transforms.schema_columns import EmbedSchema, SchemaColumn
from transforms.type_text import TypeText

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_DATE = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = "[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,6})?"
_ODD_TIMES = {"pattern": "^-?infinity$|^[0-9]{5,}-| BC$"}
"""What stays in Postgres' own text: RFC 3339 has no such time."""


def _whole(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _text(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$", **more}


def _moment(pattern: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "anyOf": [{"pattern": f"^{pattern}$", **more}, _ODD_TIMES]}


_FLOAT = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}

_SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "smallint": _whole(-(2**15), 2**15 - 1),
    "integer": _whole(-(2**31), 2**31 - 1),
    "bigint": _whole(-(2**63), 2**63 - 1),
    "oid": _whole(0, 2**32 - 1),
    "real": _FLOAT,
    "double precision": _FLOAT,
    "boolean": {"type": "boolean"},
    "numeric": _text("(-?[0-9]+(\\.[0-9]+)?|NaN|-?Infinity)"),
    "json": {},
    "jsonb": {},
    "timestamp with time zone": _moment(f"{_DATE}T{_TIME}Z", format="date-time"),
    "timestamp without time zone": _moment(f"{_DATE}T{_TIME}"),
    "date": _moment(_DATE, format="date"),
    "time without time zone": _text(_TIME),
    "time with time zone": _text(f"{_TIME}[+-][0-9]{{2}}(:[0-9]{{2}}){{0,2}}"),
    "uuid": _text("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", format="uuid"),
    "bytea": _text(r"\\x([0-9a-f]{2})*"),
    "bit": _text("[01]*"),
    "bit varying": _text("[01]*"),
}
"""By the type's name without modifier. All others are strings."""


def state_schema(
    label: str, rev: int, key: Sequence[str], columns: Sequence[SchemaColumn], *, optional: Collection[str]
) -> dict[str, Any]:
    """The schema of an event's `state`, and under `$defs` that of its `key`; `optional` fields may not be there."""
    fields = {column.name: column for column in columns}
    return {
        "$schema": DIALECT,
        "title": label,
        "description": (
            f"What the field `state` of an entry of {label} holds, at revision {rev}. An entry with `partial` lacks the"
            " fields that it names there; json and jsonb fields that `quoted` names are strings that hold the JSON."
        ),
        **_object(columns, [column.name for column in columns if column.name not in optional]),
        "$defs": {"key": _object([fields[name] for name in key], key)},
    }


def _object(columns: Sequence[SchemaColumn], required: Sequence[str]) -> dict[str, Any]:
    properties = {column.name: _field(column) for column in columns}
    return {"type": "object", "properties": properties, "required": list(required)}


def _field(column: SchemaColumn) -> dict[str, Any]:
    if column.masked == "null":
        schema: dict[str, Any] = {"type": "null"}
    else:
        schema = _rows(column.embed) if column.embed else _value(TypeText.of(column.base_type))
        schema = _or_null(schema) if column.nullable else schema
    told = "related rows" if column.embed else column.pg_type
    return {"description": f"{told}, masked: {column.masked}" if column.masked else told, **schema}


def _rows(embed: EmbedSchema) -> dict[str, Any]:
    row = _object(embed.columns, [column.name for column in embed.columns if not column.nullable])
    return {"type": "array", "items": row} if embed.many else row


def _value(type_: TypeText) -> dict[str, Any]:
    if type_.is_array:  # of more dimensions: arrays of arrays; with other lower bounds than 1: Postgres' text
        own = {"type": ["string", "number", "boolean"]}  # perhaps a domain: the document does not tell over what
        items = {"anyOf": [_or_null(own if type_.is_own else _scalar(type_)), {"type": "array"}]}
        return {"anyOf": [{"type": "array", "items": items}, {"type": "string"}]}
    return _scalar(type_)


def _scalar(type_: TypeText) -> dict[str, Any]:
    if type_.name in ("character", "character varying") and type_.size is not None:
        return {"type": "string", "maxLength": type_.size}
    return _SCHEMAS.get(type_.name, {"type": "string"})


def _or_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "type" in schema:  # what else it demands, it demands of that type's values alone
        return {**schema, "type": [*([schema["type"]] if isinstance(schema["type"], str) else schema["type"]), "null"]}
    return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]} if schema else {}
