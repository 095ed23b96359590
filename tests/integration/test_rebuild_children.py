"""The tables of embeds are rebuilt with their event's table, and swapped in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from sinks.errors import TableMisfit
from sinks.rebuild.command import RebuildCommand, Wishes
from tests.contracts import expect_streams_as_promised
from tests.integration.order_harness import ORDER, embed, line, lines_of, order, remove, tags_of
from tests.integration.sink_harness import Pipeline, Words, column, mark
from transforms.schema import SchemaDocument

SNAPSHOT = (b"origin", b"snapshot")


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """With a replica of three orders with lines and tags, which a snapshot has filled."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.describe(ORDER)
        made.tables = {"order.v1": "replica.orders"}
        made.embeds = {"order.v1": {"lines": "replica.lines", "tags": "replica.tags"}}
        rows = [[*order(id_, "a", line(1, "a"), tags="x"), *SNAPSHOT] for id_ in (1, 2, 3)]
        run = mark("run-begin", "r0", "order.v1"), mark("run-end", "r0", "order.v1")
        made.transaction(run[0], *rows, run[1], stream="order")
        assert made.apply() == 0
        yield made
        expect_streams_as_promised(made.redis, made.keys)


def ask(pipeline: Pipeline, keep_as: str | None = None) -> list[str]:
    said: list[str] = []
    with closing(RebuildCommand(pipeline.config(), "order")) as rebuild:
        rebuild.ask(Wishes(keep_as), said.append)
    return said


def begin(pipeline: Pipeline) -> str:
    assert pipeline.apply() == 0
    ((run,),) = pipeline.rows("SELECT run FROM cdc.rebuild WHERE state = 'filling'")
    return str(run)


def own(words: Words) -> Words:
    return [*words, *SNAPSHOT, b"to", b"billing"]


def own_mark(name: str, run: str) -> Words:
    return mark(name, run, "order.v1", to="billing")


def tables(pipeline: Pipeline) -> list[str]:
    query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'replica'::regnamespace ORDER BY 1"
    return [row[0] for row in pipeline.rows(query)]


def registered(pipeline: Pipeline) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in pipeline.rows("SELECT table_name, event FROM cdc.replica ORDER BY 1")]


def test_children_are_filled_beside_the_ones_that_are_read_and_swapped_with_their_parents(pipeline: Pipeline) -> None:
    pipeline.execute("CREATE INDEX by_sku ON replica.lines (sku); CREATE VIEW replica.skus AS TABLE replica.lines")
    before = pipeline.rows("SELECT 'replica.lines'::regclass::oid, 'replica.tags'::regclass::oid")
    known = registered(pipeline)
    assert ask(pipeline)[1:] == [
        "with it: replica.lines, as replica.lines_rebuild",
        "with it: replica.tags, as replica.tags_rebuild",
        "no worker of sink billing is at work: start `cdc-sink run billing`",
    ]
    run = begin(pipeline)
    pipeline.transaction(
        own_mark("run-begin", run), own(order(1, "b", line(2, "b"), tags="y")), own(order(2, "b")), stream="order"
    )
    pipeline.transaction(order(3, "live", line(3, "c")), order(4, "live", line(4, "d")), stream="order", end=False)
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 1, "a"), (2, 1, "a"), (3, 3, "c"), (4, 4, "d")], "the old ones take changes"
    assert pipeline.rows("SELECT order_id, sku FROM replica.lines_rebuild ORDER BY 1") == [
        (1, "b"),
        (3, "c"),
        (4, "d"),
    ]
    pipeline.transaction(remove(4), own_mark("run-end", run), stream="order")
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT state FROM cdc.rebuild") == [("done",)]
    assert lines_of(pipeline) == [(1, 2, "b"), (3, 3, "c")]
    assert tags_of(pipeline) == [(1, 1, "y")]
    assert pipeline.rows("SELECT sku FROM replica.skus ORDER BY 1") == [("b",), ("c",)], "views follow"
    assert tables(pipeline) == ["lines", "orders", "tags"]
    assert registered(pipeline) == known
    after = pipeline.rows("SELECT 'replica.lines'::regclass::oid, 'replica.tags'::regclass::oid")
    assert set(after[0]).isdisjoint(before[0])
    assert ("by_sku",) in pipeline.rows("SELECT indexname::text FROM pg_indexes WHERE tablename = 'lines'")
    pipeline.transaction(order(1, "c", line(9, "z")), stream="order")
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 9, "z"), (3, 3, "c")]
    assert pipeline.requests()[1:] == [], "nothing more was asked for than the rebuild's own snapshot"


def test_an_embed_whose_types_have_changed_is_rebuilt_while_the_old_table_is_read(pipeline: Pipeline) -> None:
    fields = [column("id", "integer"), column("sku", "text"), column("price", "text"), column("product", "jsonb")]
    lines = embed("lines", *fields, key=("id",))
    columns = tuple(lines if each.name == "lines" else each for each in ORDER.columns)
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), columns))
    with pytest.raises(TableMisfit, match=r"column price is numeric\(10,2\), its event has text") as caught:
        pipeline.apply()
    assert "Run `cdc-sink rebuild billing order.v1`" in caught.value.remedy
    ask(pipeline, "orders_old")
    run = begin(pipeline)
    pipeline.transaction(own_mark("run-begin", run), own(order(1, "b", line(1, "b", "a lot"))), stream="order")
    pipeline.transaction(order(2, "live", line(1, "c", "no number")), stream="order")
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 1, "a"), (2, 1, "a"), (3, 1, "a")], "the old ones stay as they are"
    pipeline.transaction(own_mark("run-end", run), stream="order")
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT state, reason FROM cdc.rebuild") == [("done", None)]
    assert pipeline.rows("SELECT order_id, price FROM replica.lines ORDER BY 1") == [(1, "a lot"), (2, "no number")]
    assert tables(pipeline) == ["lines", "orders", "orders_old", "orders_old_lines", "orders_old_tags", "tags"]


@pytest.mark.parametrize("how", ["called off", "failed"])
def test_shadows_of_children_go_with_a_rebuild_that_is_given_up(pipeline: Pipeline, how: str) -> None:
    known = registered(pipeline)
    ask(pipeline)
    begin(pipeline)
    assert tables(pipeline)[1::2] == ["lines_rebuild", "orders_rebuild", "tags_rebuild"]
    if how == "called off":
        with closing(RebuildCommand(pipeline.config(), "order")) as rebuild:
            rebuild.call_off(lambda _: None)
    else:
        pipeline.execute("DROP TABLE replica.tags_rebuild")
        pipeline.execute("CREATE TABLE public.x (a integer, b integer, FOREIGN KEY (a, b) REFERENCES replica.tags)")
    assert pipeline.apply() == 0
    if how == "failed":
        assert "replica.tags cannot be rebuilt: " in str(pipeline.rows("SELECT reason FROM cdc.rebuild"))
    assert pipeline.rows("SELECT state FROM cdc.rebuild") == [(how,)]
    assert tables(pipeline) == ["lines", "orders", "tags"]
    assert registered(pipeline) == known


def test_a_rebuild_begins_anew_when_an_embed_loses_its_table_meanwhile(pipeline: Pipeline) -> None:
    ask(pipeline)
    first = begin(pipeline)
    pipeline.transaction(own_mark("run-begin", first), own(order(1, "b", line(2, "b"), tags="y")), stream="order")
    assert pipeline.apply() == 0
    del pipeline.embeds["order.v1"]["tags"]
    second = begin(pipeline)
    assert second != first
    pipeline.transaction(own_mark("run-end", first), stream="order")
    pipeline.transaction(
        own_mark("run-begin", second), own(order(1, "b", line(2, "b"), tags="z")), own_mark("run-end", second),
        stream="order",
    )  # fmt: skip
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT state FROM cdc.rebuild") == [("done",)]
    assert tables(pipeline) == ["lines", "orders", "tags"]
    assert pipeline.rows("SELECT tags FROM replica.orders") == [([{"word": "z"}],)]
