"""Embeds as columns: jsonb documents that hold what the source's Postgres built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts import expect_streams_as_promised
from tests.integration.order_harness import ORDER, line, order
from tests.integration.sink_harness import Pipeline, column, command, mark, upsert, use_technique
from transforms.schema import SchemaColumn, SchemaDocument


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline of orders, whose embeds are columns."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.describe(ORDER)
        made.tables = {"order.v1": "replica.orders"}
        yield made
        expect_streams_as_promised(made.redis, made.keys)


def test_an_embed_is_a_jsonb_column_of_the_table_that_is_printed(pipeline: Pipeline, tmp_path: Path) -> None:
    printed = command(pipeline.config_file(tmp_path), "tables")[1]
    assert '"lines" jsonb\n  , "tags" jsonb\n  , "customer" jsonb' in printed


@pytest.mark.parametrize("technique", ["json", "copy"])
def test_rows_and_none_are_kept_as_they_come(
    pipeline: Pipeline, technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_technique(technique, monkeypatch)
    owner = {"id": 5, "name": "O'\"\\ \t"}
    run = mark("run-begin", "r", "order.v1"), mark("run-end", "r", "order.v1")
    pipeline.transaction(run[0], order(1, "a", line(1, "b", title="c"), tags="x", customer=owner), stream="order")
    pipeline.transaction(order(2, "a"), run[1], stream="order")
    assert pipeline.apply() == 0
    query = "SELECT lines, tags, customer, customer IS NULL FROM replica.orders ORDER BY id"
    assert pipeline.rows(query) == [
        ([line(1, "b", title="c")], [{"word": "x"}], owner, False),
        ([], [], None, True),
    ]
    pipeline.transaction(order(1, "b", customer=None), order(3, "b", customer=owner), stream="order")
    assert pipeline.apply() == 0
    assert pipeline.rows(query) == [([], [], None, True), ([], [], None, True), ([], [], owner, False)]


@pytest.mark.parametrize("type_", ["text", "jsonb", "json", "integer"])
def test_a_field_of_an_embed_is_not_taken_for_one_of_the_event(
    pipeline: Pipeline, type_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COPY finds values by their names, of which the embed has some too."""
    use_technique("copy", monkeypatch)
    columns = (ORDER.columns[0], ORDER.columns[2], column("note", type_))
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), columns))
    values = {"text": ['"in"', '"out"'], "integer": ["1", "2"]}.get(type_, ['{"a": 1}', '{"note":2}'])
    state = f'{{"id":1,"lines":[{{"id":1,"note":{values[0]}}}],"note":{values[1]}}}'
    pipeline.transaction(upsert({"id": 1}, state.encode(), type_="order.v1"), stream="order")
    assert pipeline.apply() == 0
    expected = json.loads(state)
    assert pipeline.rows("SELECT to_jsonb(o) FROM replica.orders o") == [(expected,)]


def test_an_embed_that_an_event_gains_is_a_column_that_is_added(pipeline: Pipeline) -> None:
    before = SchemaDocument("order", 1, "order", ("id",), ORDER.columns[:2])
    pipeline.describe(before)
    pipeline.transaction(upsert({"id": 1}, {"id": 1, "status": "a"}, type_="order.v1"), stream="order")
    assert pipeline.apply() == 0
    gained = tuple(SchemaColumn(each.name, "jsonb", "jsonb", True, embed=each.embed) for each in ORDER.columns[2:])
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), ORDER.columns[:2] + gained).succeed(before))
    pipeline.transaction([*order(2, "b", line(1, "c")), b"rev", b"2"], stream="order")
    assert pipeline.apply() == 0
    rows = pipeline.rows("SELECT id, status, lines, customer FROM replica.orders ORDER BY id")
    assert rows == [(1, "a", None, None), (2, "b", [line(1, "c")], None)]
