"""Which columns of a relation that the log announces may have been other ones than those of their names now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.announced import Attribute, doubtful_columns


def table(*names: str, dropped: tuple[int, ...] = (), generated: tuple[int, ...] = ()) -> list[Attribute]:
    """A table's columns by number, from 1 on."""
    return [Attribute(name, number, number in dropped, number in generated) for number, name in enumerate(names, 1)]


@pytest.mark.parametrize(
    ("announced", "now", "doubtful"),
    [
        pytest.param("id a b", table("id", "a", "b"), [], id="as it is"),
        pytest.param("id a", table("id", "a", "b"), [], id="before a column was added"),
        pytest.param("id x a", table("id", "x", "a", dropped=(2,)), [], id="before a column was dropped"),
        pytest.param("id x b", table("id", "a", "b"), [], id="before a column got its name"),
        pytest.param("id x a", table("id", "a", "b"), ["a"], id="while another one had the name"),
        pytest.param("id b a", table("id", "a", "b"), ["a", "b"], id="while two had each other's"),
        pytest.param("id x a", table("id", "a", "b", dropped=(3,)), ["a"], id="and that one is dropped"),
        pytest.param(
            "id x a", table("id", "gone", "a", "b", dropped=(2,)), ["a"], id="unclear, with one dropped before"
        ),
        pytest.param("a id", table("id", "a", "g", generated=(3,)), ["id", "a"], id="beside a generated column"),
        pytest.param("id g a", table("id", "g", "a", generated=(2,)), [], id="a generated column is in the log"),
    ],
)
def test_a_column_s_place_tells_whether_it_is_the_one_of_its_name(
    announced: str, now: list[Attribute], doubtful: list[str]
) -> None:
    assert doubtful_columns(announced.split(), now, ["id", "a", "b"]) == doubtful


_STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "drop", "rename"]), st.integers(0, 7), st.integers(0, 7)), max_size=9
)


class _Table:
    """Columns by number, altered as ALTER TABLE does; no new column takes a name that was there before."""

    def __init__(self) -> None:
        self.columns: list[str | None] = ["c0", "c1", "c2", "c3"]
        self._names = 4

    def alter(self, step: tuple[str, int, int]) -> None:
        kind, first, second = step
        alive = [number for number, name in enumerate(self.columns) if name is not None]
        if kind == "add" or not alive:
            self._names += 1
            self.columns.append(f"new{self._names}")
        elif kind == "drop":
            self.columns[alive[first % len(alive)]] = None
        elif (name := f"c{second}") not in self.columns:
            self.columns[alive[first % len(alive)]] = name

    def numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.columns, 1) if name is not None}


@given(before=_STEPS, after=_STEPS)
def test_no_column_that_was_another_one_passes_for_what_it_is(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    table = _Table()
    stored = table.numbers()
    for step in before:
        table.alter(step)
    then = table.numbers()
    for step in after:
        table.alter(step)
    now = table.numbers()
    attributes = [Attribute(name or "gone", n, name is None, False) for n, name in enumerate(table.columns, 1)]
    found = doubtful_columns(list(then), attributes, list(now))
    others = [name for name, number in now.items() if stored.get(name) == number != then.get(name, number)]
    assert set(others) <= set(found)


@given(before=_STEPS, after=_STEPS)
def test_nothing_is_doubtful_where_no_column_was_renamed(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    table = _Table()
    for step in before:
        table.alter(step)
    then = table.numbers()
    for step in after:
        if step[0] != "rename":
            table.alter(step)
    attributes = [Attribute(name or "gone", n, name is None, False) for n, name in enumerate(table.columns, 1)]
    now = table.numbers()
    if (
        now.keys() <= then.keys() or now.keys() >= then.keys()
    ):  # dropped and added: it cannot tell, and a snapshot is made
        assert doubtful_columns(list(then), attributes, list(now)) == []
