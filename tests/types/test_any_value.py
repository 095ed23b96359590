"""Any value of any type, drawn as literals, comes out of the replica as it went in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import servers
from tests.types import profile
from tests.types.literals import LITERALS
from tests.types.mirror import Group, Literal, Mirror, assert_same, mirror
from tests.types.samples import ESCAPED_STRINGS, OWN_TYPES

ROWS = 25
"""Values of each type in a batch: what Hypothesis draws for one example is limited."""
GROUPS = {name.replace(" ", "_"): types for name, types in LITERALS.items()}


@pytest.fixture(scope="module")
def pipeline(
    postgres_server: servers.Postgres, redis_server: servers.Redis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mirror]:
    groups = [
        Group(name, {f"c{number}": type_ for number, type_ in enumerate(types)}) for name, types in GROUPS.items()
    ]
    groups.append(Group("escaped", {"v": "json"}))
    with mirror(postgres_server, redis_server, tmp_path_factory.mktemp("values"), groups, OWN_TYPES) as made:
        yield made


def send(pipeline: Mirror, group: str, data: st.DataObject) -> int:
    """Draw a batch for a group of types, send it, compare it; returns how many values it had."""
    batch: dict[str, list[Literal]] = {}
    for (column, type_), strategy in zip(pipeline.groups[group].columns.items(), GROUPS[group].values(), strict=True):
        drawn = data.draw(st.lists(st.one_of(strategy, strategy, st.none()), min_size=ROWS, max_size=ROWS), type_)
        batch[column] = pipeline.oracle.accepts(type_, drawn)
    assert_same(pipeline.carry(group, batch | {column: values or [None] for column, values in batch.items()}))
    return sum(map(len, batch.values()))


@pytest.mark.parametrize("group", GROUPS)
def test_any_value_comes_out_of_the_replica_as_it_went_in(pipeline: Mirror, group: str) -> None:
    @profile.examples(4)
    @given(st.data())
    def property_(data: Any) -> None:
        send(pipeline, group, data)

    property_()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", GROUPS)
def test_a_great_many_values_come_out_as_they_went_in(pipeline: Mirror, group: str) -> None:
    @profile.examples(150)
    @given(st.data())
    def property_(data: Any) -> None:
        send(pipeline, group, data)

    property_()


def test_json_that_is_a_string_keeps_its_escapes(pipeline: Mirror) -> None:
    assert_same(pipeline.carry("escaped", {"v": ESCAPED_STRINGS}))
