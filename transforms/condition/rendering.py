"""A condition as SQL: every name and literal is quoted, every literal has its type, every term its parentheses."""

from __future__ import annotations

from transforms.condition.kinds import Literal
from transforms.condition.tree import And, Comparison, Condition, Holds, IsNull, Matches, Not, OneOf, Operand, Or


def render(condition: Condition) -> str:
    """A boolean expression of Postgres, whatever the session's settings; columns go by their names alone."""
    match condition:
        case And(terms):
            return f"({' AND '.join(map(render, terms))})"
        case Or(terms):
            return f"({' OR '.join(map(render, terms))})"
        case Not(term):
            return f"(NOT {render(term)})"
        case Comparison(column, operator, literal):
            return f"({_operand(column)} {operator} {_literal(column, literal)})"
        case OneOf(column, literals):
            return f"({_operand(column)} IN ({', '.join(_literal(column, literal) for literal in literals)}))"
        case Matches(column, pattern):
            return f"({_operand(column)} LIKE {_quoted(pattern)}::pg_catalog.text)"
        case IsNull(name):
            return f"({_identifier(name)} IS NULL)"
        case Holds(name):
            return _identifier(name)


def _operand(column: Operand) -> str:
    return column.kind.operand.replace("{}", _identifier(column.name))


def _literal(column: Operand, literal: Literal) -> str:
    return f"{_quoted(literal.text)}::{column.kind.literal_type}"


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    """A string constant that means the same whatever standard_conforming_strings says."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"
