"""A condition as a function of a row, which says what Postgres would: it holds, it does not, or that is unknown."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from transforms.condition import patterns
from transforms.condition.tree import And, Comparison, Condition, Holds, IsNull, Matches, Not, OneOf, Operator, Or

Judge: TypeAlias = Callable[[Sequence[bytes | None]], bool | None]
"""Takes the texts of a row's values, as Postgres writes them in our sessions; None stands for NULL, and for unknown."""

_COMPARE: Final[Mapping[Operator, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compile_judge(condition: Condition, names: Sequence[str]) -> Judge:
    """The judge of rows whose values come in the order of these columns."""
    place = {name: at for at, name in enumerate(names)}
    return _Compiler(place).judge(condition)


class _Compiler:
    def __init__(self, place: Mapping[str, int]) -> None:
        self._place = place

    def judge(self, condition: Condition) -> Judge:
        match condition:
            case And(terms):
                return _first_or_unknown(False, [self.judge(term) for term in terms])
            case Or(terms):
                return _first_or_unknown(True, [self.judge(term) for term in terms])
            case Not(term):
                return _negated(self.judge(term))
            case Comparison(column, sign, literal):
                return _compared(self._place[column.name], column.kind.key, _COMPARE[sign], literal.key)
            case OneOf(column, literals):
                among = frozenset(literal.key for literal in literals)
                return _among(self._place[column.name], column.kind.key, among)
            case Matches(column, pattern):
                matches = patterns.compile_pattern(pattern).fullmatch
                return self._of_value(column.name, lambda text: matches(text.decode()) is not None)
            case IsNull(name):
                at = self._place[name]
                return lambda row: row[at] is None
            case Holds(name):
                return self._of_value(name, lambda text: text == b"t")

    def _of_value(self, name: str, judge: Callable[[bytes], bool]) -> Judge:
        at = self._place[name]

        def judged(row: Sequence[bytes | None]) -> bool | None:
            return None if (text := row[at]) is None else judge(text)

        return judged


# Each in one function, for a row is judged in less than a microsecond, and a call is a tenth of that.


def _compared(at: int, key: Callable[[bytes], Any], compare: Callable[[Any, Any], bool], wanted: Any) -> Judge:
    def judged(row: Sequence[bytes | None]) -> bool | None:
        return None if (text := row[at]) is None else compare(key(text), wanted)

    return judged


def _among(at: int, key: Callable[[bytes], Any], among: frozenset[Any]) -> Judge:
    def judged(row: Sequence[bytes | None]) -> bool | None:
        return None if (text := row[at]) is None else key(text) in among

    return judged


def _first_or_unknown(decisive: bool, judges: Sequence[Judge]) -> Judge:
    """AND is decided by one False, OR by one True, whatever is unknown beside it."""

    def judged(row: Sequence[bytes | None]) -> bool | None:
        verdict: bool | None = not decisive
        for judge in judges:
            if (found := judge(row)) is decisive:
                return decisive
            if found is None:
                verdict = None
        return verdict

    return judged


def _negated(judge: Judge) -> Judge:
    def judged(row: Sequence[bytes | None]) -> bool | None:
        return None if (found := judge(row)) is None else not found

    return judged
