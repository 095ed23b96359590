"""SQL that compares columns as their types do.

A session's search path is pg_catalog alone, and an operator that is not found there is not an error: citext is compared
as text then, while ORDER BY and indexes go by the type's own order. So operators of other schemas are named with those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psycopg import sql

from cdc.catalog import Column
from transforms.column_type import BUILT_IN

_FORMS_OF_THEIR_OWN: Final = {1042: "bpchar", 1700: "numeric"}


def comparable(column: Column, table: str | None = None) -> sql.Composable:
    """A column in its base type: a domain over an enum has no operators of its own."""
    name = sql.Identifier(column.name) if table is None else sql.Identifier(table, column.name)
    if column.type.pg_type == column.type.base_type:
        return name
    return sql.SQL("{}::{}").format(name, sql.SQL(column.type.base_type))


def equal(own: Column, left: sql.Composable, theirs: Column, right: sql.Composable) -> sql.Composed:
    """That two columns, or values of them, are equal."""
    return sql.SQL("{} {} {}").format(_enum(own, left), _operator(own, "="), _enum(theirs, right))


def _enum(column: Column, value: sql.Composable) -> sql.Composable:
    """What is of a domain over an enum as that; all else as it is, which indexes are of."""
    if column.type.is_enum and column.type.pg_type != column.type.base_type:
        return sql.SQL("{}::{}").format(value, sql.SQL(column.type.base_type))
    return value


def _operator(column: Column, name: str) -> sql.Composed:
    return sql.SQL("OPERATOR({}.{})").format(sql.Identifier(column.type.operators), sql.SQL(name))


def read_as(own: Column, theirs: Column) -> str:
    """The type in which a value that a row had in `own` is looked for in `theirs`.

    Theirs, since `own` may be of a narrower type now than in the log; but where that would not take every form that is
    equal to one of its values (`1.0` for 1, `a  ` for `a`).
    """
    if own.type.base_oid != theirs.type.base_oid and own.type.base_oid in _FORMS_OF_THEIR_OWN:
        return _FORMS_OF_THEIR_OWN[own.type.base_oid]
    return theirs.type.base_type


def bound(key: Sequence[Column], operator: str, values: Sequence[str], table: str | None = None) -> sql.Composed:
    """That a row's key is `>` or `<=` a key that is given as Postgres' text."""
    names = [comparable(column, table) for column in key]
    literals = [
        sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(column.type.base_type))
        for column, text in zip(key, values, strict=True)
    ]
    if all(column.type.operators == BUILT_IN for column in key):
        comma = sql.SQL(", ")
        return sql.SQL("({}) {} ({})").format(comma.join(names), sql.SQL(operator), comma.join(literals))
    behind: sql.Composable = sql.SQL("false")
    for column, name, literal in reversed(list(zip(key, names, literals, strict=True))):
        behind = sql.SQL("({name} {above} {value} OR ({name} {same} {value} AND {rest}))").format(
            name=name, above=_operator(column, ">"), value=literal, same=_operator(column, "="), rest=behind
        )
    reach = _operator(key[0], ">=" if operator == ">" else "<=")  # which an index leads to
    judged = behind if operator == ">" else sql.SQL("NOT {}").format(behind)
    return sql.SQL("{} {} {} AND {}").format(names[0], reach, literals[0], judged)
