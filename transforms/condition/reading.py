"""From the text of a condition to its tree: names become columns, literals get their column's type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast

from sqlglot import exp

from transforms.column_type import ColumnType
from transforms.condition import grammar, patterns
from transforms.condition.kinds import Kind, Literal, Written, kind_of
from transforms.condition.refusal import ConditionRefused
from transforms.condition.tree import (
    And,
    Comparison,
    Condition,
    Holds,
    IsNull,
    Matches,
    Not,
    OneOf,
    Operand,
    Operator,
    Or,
)
from transforms.names import quote_identifier

Read = TypeVar("Read")

_OPERATORS: Final[Mapping[type[exp.Expr], Operator]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_TURNED: Final[Mapping[Operator, Operator]] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_PARTS: Final = frozenset({"this", "expression", "expressions", "low", "high", "negate", "is_string", "quoted"})
_STRANGE: Final = "conditions compare a column with a literal, and have nothing like this"


def read_condition(text: str, columns: Mapping[str, ColumnType]) -> Condition:
    """Read a condition on the columns of an event. Raises ConditionRefused."""
    parsed = grammar.parse(text, columns)
    reader = _Reader(text, columns)
    reader.check_parts(parsed)
    return reader.condition(parsed)


class _Reader:
    def __init__(self, text: str, columns: Mapping[str, ColumnType]) -> None:
        self._text = text
        self._columns = columns

    def condition(self, node: exp.Expr) -> Condition:
        while isinstance(node, exp.Paren):
            node = self._part(node, "this")
        if isinstance(node, exp.And | exp.Or):
            terms = tuple(map(self.condition, self._joined(node)))
            return And(terms) if isinstance(node, exp.And) else Or(terms)
        if isinstance(node, exp.Not):
            return Not(self.condition(self._part(node, "this")))
        if isinstance(node, exp.Column):
            return self._holds(node)
        if (operator := _OPERATORS.get(type(node))) is not None:
            return self._comparison(node, operator)
        if (read := self._predicates.get(type(node))) is not None:
            condition = read(self, node)
            return Not(condition) if node.args.get("negate") else condition
        raise self._refused(node, _STRANGE)

    def _joined(self, node: exp.Expr) -> list[exp.Expr]:
        """The terms of a chain of ANDs or ORs, which the parser nests to the left, as deep as the chain is long."""
        terms, kind = [], type(node)
        while type(node) is kind:
            terms.append(self._part(node, "expression"))
            node = self._part(node, "this")
        return [node, *reversed(terms)]

    def _holds(self, node: exp.Column) -> Condition:
        name = self._name(node)
        kind = kind_of(self._columns[name])
        if kind is None or kind.written != (Written.TRUTH,):
            raise self._refused(node, f"a column of type {self._columns[name].pg_type} is no condition by itself")
        return Holds(name)

    def _comparison(self, node: exp.Expr, operator: Operator) -> Condition:
        left, right = self._part(node, "this"), self._part(node, "expression")
        if isinstance(right, exp.Column) and not isinstance(left, exp.Column):
            left, right, operator = right, left, _TURNED[operator]
        column = self._operand(left)
        if operator not in ("=", "<>"):
            self._check_ordered(left, column)
        return Comparison(column, operator, self._literal(right, left, column.kind))

    def _one_of(self, node: exp.Expr) -> Condition:
        left = self._part(node, "this")
        column = self._operand(left)
        if not (among := node.args.get("expressions")):
            raise self._refused(node, "IN is followed by literals in parentheses")
        return OneOf(column, tuple(self._literal(each, left, column.kind) for each in among))

    def _between(self, node: exp.Expr) -> Condition:
        left = self._part(node, "this")
        column = self._operand(left)
        self._check_ordered(left, column)
        low, high = (self._literal(self._part(node, bound), left, column.kind) for bound in ("low", "high"))
        return And((Comparison(column, ">=", low), Comparison(column, "<=", high)))

    def _is_null(self, node: exp.Expr) -> Condition:
        left, right = self._part(node, "this"), self._part(node, "expression")
        if not isinstance(right, exp.Null):
            raise self._refused(node, "IS goes with NULL alone; a boolean column stands for itself")
        return IsNull(self._name(left))

    def _matches(self, node: exp.Expr) -> Condition:
        left, right = self._part(node, "this"), self._part(node, "expression")
        column = self._operand(left)
        if not column.kind.has_patterns:
            raise self._refused(left, f"LIKE is for text, not for type {self._columns[column.name].pg_type}")
        if not (isinstance(right, exp.Literal) and right.is_string):
            raise self._refused(right, f"a pattern is {Written.TEXT.value}")
        pattern = str(right.this)
        self._right_or_refused(right, lambda: patterns.check(pattern))
        return Matches(column, pattern)

    _predicates: Mapping[type[exp.Expr], Callable[[_Reader, exp.Expr], Condition]] = {
        exp.In: _one_of,
        exp.Between: _between,
        exp.Is: _is_null,
        exp.Like: _matches,
    }

    # --- columns and literals ----------------------------------------------------------------------------------------

    def _name(self, node: exp.Expr) -> str:
        if not isinstance(node, exp.Column):
            raise self._refused(node, _STRANGE)
        name = str(self._part(node, "this").this)
        if name not in self._columns:
            there_are = ", ".join(map(quote_identifier, self._columns))
            raise self._refused(node, f"the event has no such column (it has {there_are})")
        return name

    def _operand(self, node: exp.Expr) -> Operand:
        name = self._name(node)
        if (kind := kind_of(self._columns[name])) is None:
            type_ = self._columns[name].pg_type
            raise self._refused(node, f"a column of type {type_} can be compared with nothing but NULL (IS NULL)")
        return Operand(name, kind)

    def _check_ordered(self, node: exp.Expr, column: Operand) -> None:
        if not column.kind.is_ordered:
            type_ = self._columns[column.name].pg_type
            likewise = " and LIKE" if column.kind.has_patterns else ""
            raise self._refused(node, f"a column of type {type_} is compared by = <> IN{likewise}, not by an order")

    def _literal(self, node: exp.Expr, beside: exp.Expr, kind: Kind) -> Literal:
        if isinstance(node, exp.Null):
            raise self._refused(beside, "nothing is equal to NULL: it is found by IS NULL")
        written, text = self._written(node)
        if written not in kind.written:
            expected = " or ".join(form.value for form in kind.written)
            type_ = self._columns[self._name(beside)].pg_type
            raise self._refused(node, f"a column of type {type_} is compared with {expected}", beside)
        return self._right_or_refused(node, lambda: kind.read(text))

    def _written(self, node: exp.Expr) -> tuple[Written, str]:
        negative = isinstance(node, exp.Neg)
        literal = self._part(node, "this") if negative else node
        if isinstance(literal, exp.Column):
            raise self._refused(node, "a literal is expected, text in single quotes")
        if isinstance(literal, exp.Boolean) and not negative:
            return Written.TRUTH, "true" if literal.this else "false"
        if not isinstance(literal, exp.Literal) or (negative and literal.is_string):
            raise self._refused(node, _STRANGE)
        return Written.TEXT if literal.is_string else Written.NUMBER, "-" * negative + str(literal.this)

    # --- the parser's tree -------------------------------------------------------------------------------------------

    def check_parts(self, parsed: exp.Expr) -> None:
        """Refuse whatever the parser found beside the parts that are looked at."""
        for node in parsed.walk():
            if any(value for name, value in node.args.items() if name not in _PARTS):
                raise self._refused(node, _STRANGE)

    def _part(self, node: exp.Expr, name: str) -> exp.Expr:
        if not isinstance(part := node.args.get(name), exp.Expr):
            raise self._refused(node, _STRANGE)
        return part

    def _right_or_refused(self, node: exp.Expr, read: Callable[[], Read]) -> Read:
        try:
            return read()
        except ValueError as error:
            raise self._refused(node, str(error)) from None

    def _refused(self, node: exp.Expr, problem: str, beside: exp.Expr | None = None) -> ConditionRefused:
        """TRUE, FALSE and NULL have no place of their own: that of what is `beside` them is told."""
        for each in (node, beside, node.parent):
            places = [part.meta for part in each.walk() if "start" in part.meta] if each else []
            if places:
                start, end = min(place["start"] for place in places), max(place["end"] for place in places)
                return ConditionRefused.at(self._text, cast(int, start), cast(int, end) + 1, problem)
        return ConditionRefused(problem)
