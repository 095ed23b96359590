"""Which columns a condition looks at."""

from __future__ import annotations

from transforms.condition.tree import And, Comparison, Condition, Holds, IsNull, Matches, Not, OneOf, Or


def columns_of(condition: Condition) -> tuple[str, ...]:
    """Each once, in the order in which they are named."""
    match condition:
        case And(terms) | Or(terms):
            return tuple(dict.fromkeys(name for term in terms for name in columns_of(term)))
        case Not(term):
            return columns_of(term)
        case Comparison(column) | OneOf(column) | Matches(column):
            return (column.name,)
        case IsNull(name) | Holds(name):
            return (name,)
