"""What may become of the fields of a published version: its consumers rely on them."""

from __future__ import annotations

from collections.abc import Sequence

from transforms.errors import StatecastError
from transforms.schema_columns import EmbedSchema, SchemaColumn


class SchemaIncompatible(StatecastError):
    """A change of an event's shape that its version's consumers could not follow."""

    remedy = "Raise the event's `version`: consumers of the old version keep it as long as it is configured."


class FieldsRetyped(SchemaIncompatible):
    """Nothing but types is another: it is the source where they have changed."""

    remedy = (
        "Raise the event's `version`, or give the columns back the types that they had: the event goes on by itself"
        " then, with a snapshot."
    )


def compare_fields(label: str, old: Sequence[SchemaColumn], new: Sequence[SchemaColumn]) -> None:
    """Raise SchemaIncompatible where fields of an event may not become these; FieldsRetyped if their types alone."""
    retyped: list[str] = []
    _compare(f"event {label}: ", old, new, retyped)
    if retyped:
        raise FieldsRetyped(f"event {label}: the type of {', '.join(retyped)}")


def _compare(where: str, old: Sequence[SchemaColumn], new: Sequence[SchemaColumn], retyped: list[str]) -> None:
    before, now = ({column.name: column for column in columns} for columns in (old, new))
    if removed := [name for name in before if name not in now]:
        raise SchemaIncompatible(f"{where}{', '.join(removed)} is no longer among its columns")
    if required := [column.name for column in new if column.name not in before and not column.nullable]:
        raise SchemaIncompatible(f"{where}the new field {', '.join(required)} is NOT NULL")
    if masked := [name for name in before if before[name].masked != now[name].masked]:
        raise SchemaIncompatible(f"{where}{', '.join(masked)} is masked otherwise than before")
    for name, column in before.items():
        here, there = column.embed, now[name].embed
        if here is not None and there is not None:
            _compare_rows(f"{where}in {name}, ", here, there, retyped)
        elif here is not there:
            raise SchemaIncompatible(f"{where}{name} was {_kind(here)} and is {_kind(there)}")
        elif column.pg_type != now[name].pg_type:
            retyped.append(f"{name} was {column.pg_type} and is {now[name].pg_type}")


def _compare_rows(where: str, old: EmbedSchema, new: EmbedSchema, retyped: list[str]) -> None:
    if (old.many, old.key) != (new.many, new.key):
        raise SchemaIncompatible(f"{where}`many` or the key of the related rows has changed")
    _compare(where, old.columns, new.columns, retyped)


def _kind(embed: EmbedSchema | None) -> str:
    return "a column" if embed is None else "related rows"
