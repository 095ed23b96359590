"""How an event's rows are shaped: which columns under which names, hidden how, and of which rows.

`rename`, `mask` and `where` of the configuration; what is wrong with them is told before any table is looked at, as far
as it can be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Protocol

from transforms.column_type import ColumnType
from transforms.condition.columns import columns_of
from transforms.condition.judging import compile_judge
from transforms.condition.refusal import ConditionRefused
from transforms.condition.tree import Condition
from transforms.masking import MaskName
from transforms.names import identifier_problem
from transforms.row import RowFilter

ALL_COLUMNS = ("*",)
"""As an event's columns: those that exist when the version is first published."""


class Shaped(Protocol):
    """What is written of an event."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def key(self) -> tuple[str, ...] | None: ...
    @property
    def rename(self) -> Mapping[str, str]: ...
    @property
    def mask(self) -> Mapping[str, MaskName]: ...
    @property
    def where(self) -> str | None: ...


Mistake = tuple[tuple[str, ...], str]
"""Where in the event's section, and what."""


def mistakes_of(event: Shaped, *, has_hash_key: bool) -> Iterator[Mistake]:
    """What is wrong with an event's shape, whatever its table is."""
    if event.columns != ALL_COLUMNS:
        yield from mistakes_for(event, event.columns, event.key or ())
    for column, name in event.rename.items():
        if (problem := identifier_problem(name)) is not None:
            yield ("rename", column), f"the new name is {problem}"
    for column, how in event.mask.items():
        if how == "hash" and not has_hash_key:
            yield ("mask", column), 'a hash needs a key: set masking.hash_key = "${MASK_KEY}"'
    if event.where is not None and (problem := _syntax_problem(event.where)) is not None:
        yield ("where",), problem


def mistakes_for(event: Shaped, columns: Sequence[str], key: Collection[str]) -> Iterator[Mistake]:
    """What is wrong with it, if these are its columns and its key."""
    for section, named in (("rename", event.rename), ("mask", event.mask)):
        for column in named:
            if column not in columns:
                yield (section, column), "no such column among the event's columns"
    names = [event.rename.get(column, column) for column in columns]
    for column, name in event.rename.items():
        if column in columns and names.count(name) > 1:
            yield ("rename", column), "another field of the event has this name already"
    for column, how in event.mask.items():
        if column in key and how != "hash":
            yield ("mask", column), f'expected "hash" for a column of the key, got "{how}": rows must stay distinct'


def _syntax_problem(where: str) -> str | None:
    from transforms.condition.grammar import parse  # sqlglot's 18 MB are for those who use it

    try:
        parse(where, ())
    except ConditionRefused as error:
        return str(error)
    return None


def read_where(where: str, columns: Mapping[str, ColumnType]) -> Condition:
    """The condition of an event. Raises ConditionRefused."""
    from transforms.condition.reading import read_condition

    return read_condition(where, columns)


def filter_of(condition: Condition | None) -> RowFilter | None:
    """What judges rows; None: all are of the event."""
    if condition is None:
        return None
    names = columns_of(condition)
    return RowFilter(names, compile_judge(condition, names))
