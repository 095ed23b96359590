"""A condition as a tree of values: every name is a column that is there, every literal is of its column's type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOfThese
from typing import TypeAlias

from transforms.condition.kinds import Kind, Literal

Operator: TypeAlias = OneOfThese["=", "<>", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Operand:
    """A column that can be compared."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column against a literal."""

    column: Operand
    operator: Operator
    literal: Literal


@dataclass(frozen=True, slots=True)
class OneOf:
    """`IN`."""

    column: Operand
    literals: tuple[Literal, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """`LIKE`."""

    column: Operand
    pattern: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """Of a column of any type."""

    column: str


@dataclass(frozen=True, slots=True)
class Holds:
    """A boolean column by itself."""

    column: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; of what is unknown, unknown."""

    term: Condition


@dataclass(frozen=True, slots=True)
class And:
    """All of at least two."""

    terms: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of at least two."""

    terms: tuple[Condition, ...]


Condition: TypeAlias = Comparison | OneOf | Matches | IsNull | Holds | Not | And | Or
