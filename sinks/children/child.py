"""A child table that fits, with the statements that write to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sinks.children.shape import ORDINAL, ChildShape
from sinks.postgres import Statement, compose, identifier, listed, part, verbatim
from transforms.names import TableName

_ORDINAL = identifier(ORDINAL)


@dataclass(frozen=True, slots=True)
class Child:
    """A child table that fits."""

    shape: ChildShape
    equals: Mapping[str, str]
    """Column of the parent's key -> the operator by which it compares in the child's key."""
    insert: Statement
    """Inserts the rows in a JSON array of the parents' states, its parameter."""
    insert_quoted: Statement
    """The same where the embed is a JSON string that holds JSON text."""

    @property
    def table(self) -> TableName:
        """Its name."""
        return self.shape.table

    @classmethod
    def of(
        cls, shape: ChildShape, types: Mapping[str, str], equals: Mapping[str, str], parent_types: Mapping[str, str]
    ) -> Child:
        """`types` and `equals`: the table's, by column. `parent_types`: those of the parent's table."""
        by_parent = {name: equals[column] for name, column in shape.parents.items()}
        plain, quoted = (_insert(shape, types, parent_types, is_quoted=is_quoted) for is_quoted in (False, True))
        return cls(shape, by_parent, plain, quoted)


def _insert(
    shape: ChildShape, types: Mapping[str, str], parent_types: Mapping[str, str], *, is_quoted: bool
) -> Statement:
    """Each JSON text is parsed once for its key and its embed, and the embed once more for its rows."""
    field = part("k.{}", identifier(shape.field))
    embed = part("({} #>> '{{}}')::json", field) if is_quoted else field
    columns = [part("{} {}", identifier(name), verbatim(types[name])) for name in shape.fields]
    names = [identifier(name) for name in shape.fields]
    if not shape.many:
        rows = part("json_to_record({}) AS c ({}) WHERE {} IS NOT NULL", embed, listed(columns), field)
    elif shape.is_numbered:
        numbered = "ROWS FROM (json_to_recordset({}) AS ({})) WITH ORDINALITY AS c ({}, {})"
        rows = part(numbered, embed, listed(columns), listed(names), _ORDINAL)
    else:
        rows = part("json_to_recordset({}) AS c ({})", embed, listed(columns))
    keys = [part("{} {}", identifier(name), verbatim(parent_types[name])) for name in shape.parents]
    own = [_ORDINAL] if shape.is_numbered else []
    values = [part("k.{}", identifier(name)) for name in shape.parents]
    values += [part("c.{}", name) for name in [*own, *names]]
    return compose(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM json_to_recordset(%s::json) AS k ({keys}, {field} json)"
        " CROSS JOIN LATERAL {rows}",
        table=identifier(shape.table),
        columns=listed([*map(identifier, shape.parents.values()), *own, *names]),
        values=listed(values),
        keys=listed(keys),
        field=identifier(shape.field),
        rows=rows,
    )
