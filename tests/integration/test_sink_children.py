"""Embeds as child tables: their rows come and go with their parent's row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts import expect_streams_as_promised
from tests.integration.order_harness import (
    LINES,
    ORDER,
    TAGS,
    customers_of,
    embed,
    line,
    lines_of,
    order,
    remove,
    tags_of,
)
from tests.integration.sink_harness import (
    Pipeline,
    Words,
    column,
    command,
    delete,
    mark,
    truncate,
    upsert,
    use_technique,
)
from transforms.schema import SchemaColumn, SchemaDocument


@pytest.fixture
def broken_pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline of orders, of which each embed has a table of its own; its entries may be of no schema."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.describe(ORDER)
        made.tables = {"order.v1": "replica.orders"}
        made.embeds = {"order.v1": {name: f"replica.{name}" for name in ("lines", "tags", "customer")}}
        yield made


@pytest.fixture
def pipeline(broken_pipeline: Pipeline) -> Iterator[Pipeline]:
    """The same, whose entries are what the schema document promises."""
    yield broken_pipeline
    expect_streams_as_promised(broken_pipeline.redis, broken_pipeline.keys)


KEYS = (
    "SELECT c.relname::text, string_agg(a.attname, ' ' ORDER BY k.place) FROM pg_index i"
    " JOIN pg_class c ON c.oid = i.indrelid CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (n, place)"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.n"
    " WHERE i.indisprimary AND c.relnamespace = 'replica'::regnamespace GROUP BY c.relname"
)
TYPES = (
    "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
)


def test_a_child_table_has_the_parents_key_the_embeds_fields_and_the_sources_types(pipeline: Pipeline) -> None:
    assert pipeline.apply() == 0
    assert dict(pipeline.rows(KEYS)) == {
        "orders": "id",
        "lines": "order_id id",
        "tags": "order_id ordinal",
        "customer": "order_id",
    }
    assert dict(pipeline.rows(TYPES, "replica.lines")) == {
        "order_id": "integer",
        "id": "integer",
        "sku": "text",
        "price": "numeric(10,2)",
        "product": "jsonb",
    }
    assert dict(pipeline.rows(TYPES, "replica.orders")) == {"id": "integer", "status": "text"}
    owners = dict(pipeline.rows("SELECT table_name, event FROM cdc.replica"))
    assert owners == {"replica.orders": "order.v1"} | {
        f"replica.{name}": f"order.v1.{name}" for name in ("lines", "tags", "customer")
    }


@pytest.mark.parametrize("technique", ["json", "copy"])
def test_rows_of_children_are_those_of_the_last_state(
    pipeline: Pipeline, technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_technique(technique, monkeypatch)
    pipeline.transaction(
        order(1, "new", line(11, "a", title="A"), line(12, "b"), tags="x y x", customer={"id": 7, "name": "Jo"}),
        order(2, "new", line(11, "c"), customer={"id": 7, "name": "Jo"}),
        order(3, "new"),
        stream="order",
    )
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 11, "a"), (1, 12, "b"), (2, 11, "c")]
    assert tags_of(pipeline) == [(1, 1, "x"), (1, 2, "y"), (1, 3, "x")]
    assert customers_of(pipeline) == [(1, 7, "Jo"), (2, 7, "Jo")]
    assert pipeline.rows("SELECT product FROM replica.lines ORDER BY 1") == [({"title": "A"},), (None,), (None,)]

    pipeline.transaction(
        order(1, "paid", line(12, "b2"), line(13, "d"), tags="z"),
        order(3, "paid", line(1, "e")),
        order(4, "x", line(1, "f")),
        remove(2),
        remove(4),
        stream="order",
    )
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 12, "b2"), (1, 13, "d"), (3, 1, "e")]
    assert (tags_of(pipeline), customers_of(pipeline)) == ([(1, 1, "z")], [])

    pipeline.transaction(truncate("order.v1"), order(5, "new", line(1, "g"), tags="t"), stream="order")
    assert pipeline.apply() == 0
    assert (lines_of(pipeline), tags_of(pipeline)) == ([(5, 1, "g")], [(5, 1, "t")])


def test_a_key_change_moves_the_rows_of_children(pipeline: Pipeline) -> None:
    pipeline.transaction(order(1, "new", line(11, "a")), order(2, "new", line(21, "b")), stream="order")
    pipeline.transaction(remove(1), order(3, "new", line(11, "a")), stream="order")
    pipeline.transaction(remove(2), order(1, "new", line(21, "b")), stream="order")
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 21, "b"), (3, 11, "a")]


def test_a_partial_event_and_one_of_an_older_revision_leave_absent_embeds_alone(pipeline: Pipeline) -> None:
    older = SchemaDocument("order", 1, "order", ("id",), tuple(c for c in ORDER.columns if c.name != "tags"))
    added = SchemaColumn("tags", "jsonb", "jsonb", True, embed=TAGS.embed)
    newer = SchemaDocument("order", 1, "order", ("id",), (*older.columns, added)).succeed(older)
    pipeline.describe(newer)
    pipeline.transaction(order(1, "new", line(11, "a"), tags="x"), order(9, "", line(9, "z")), stream="order")
    pipeline.transaction([*order(1, "new", line(11, "a"), tags="x"), b"rev", b"2"], stream="order")
    pipeline.transaction(
        upsert({"id": 1}, {"id": 1, "status": "b", "customer": None}, b"partial", b'["lines","tags"]', b"rev", b"2",
               type_="order.v1"),
        upsert({"id": 2}, {"id": 2, "status": "b", "lines": [line(1, "?")]}, b"partial", b'["customer"]',
               type_="order.v1"),
        order(9, "b", line(9, "y")),
        stream="order",
    )  # fmt: skip
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT id, status FROM replica.orders ORDER BY id") == [(1, "b"), (9, "b")]
    assert lines_of(pipeline) == [(1, 11, "a"), (9, 9, "y")], "and nothing of a parent that is not there"
    assert tags_of(pipeline) == [(1, 1, "x")]


def test_a_quoted_embed_is_read_as_the_text_that_it_is(broken_pipeline: Pipeline) -> None:
    state = {"id": 1, "status": "x", "lines": json.dumps([line(1, "a")]), "tags": [], "customer": None}
    broken_pipeline.transaction(upsert({"id": 1}, state, b"quoted", b'["lines"]', type_="order.v1"), stream="order")
    assert broken_pipeline.apply() == 0
    assert lines_of(broken_pipeline) == [(1, 1, "a")]


def test_a_parent_whose_child_does_not_fit_is_parked_whole_and_applied_whole_later(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    assert pipeline.apply() == 0
    pipeline.execute("ALTER TABLE replica.lines ADD CHECK (sku <> 'bad')")
    pipeline.transaction(order(1, "old", line(11, "a"), tags="x"), order(2, "old"), stream="order")
    assert pipeline.apply() == 0
    pipeline.transaction(
        order(1, "new", line(12, "good"), line(13, "bad"), tags="y"),
        order(2, "new", line(21, "b")),
        order(3, "new", line(31, "bad")),
        stream="order",
    )
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT id, status FROM replica.orders ORDER BY id") == [(1, "old"), (2, "new")]
    assert lines_of(pipeline) == [(1, 11, "a"), (2, 21, "b")]
    assert tags_of(pipeline) == [(1, 1, "x")]
    config = pipeline.config_file(tmp_path)
    told = json.loads(command(config, "dead", "list", "--json")[1])
    assert all("at table lines, constraint lines_sku_check" in event["message"] for event in told)
    ids = [str(event["id"]) for event in told]
    assert command(config, "dead", "retry", *ids)[0] == 1
    assert lines_of(pipeline) == [(1, 11, "a"), (2, 21, "b")]
    pipeline.execute("ALTER TABLE replica.lines DROP CONSTRAINT lines_sku_check")
    assert command(config, "dead", "retry", *ids)[:2] == (0, "".join(f"{id_}: applied\n" for id_ in ids))
    assert lines_of(pipeline) == [(1, 12, "good"), (1, 13, "bad"), (2, 21, "b"), (3, 31, "bad")]
    assert tags_of(pipeline) == [(1, 1, "y")]


NO_ROWS = [
    *[("lines", text) for text in ("5", '"text"', "[1]", "[[]]", "[null]", "{}")],
    *[("lines", text) for text in ('[{"id":1},{"id":1}]', '[{"id":null}]', '[{"id":"x"}]')],
    *[("customer", text) for text in ("5", "[]", '[{"id":1}]', '{"id":"x"}')],
]


def test_what_is_no_row_of_an_embed_is_parked_alone_with_its_parent(broken_pipeline: Pipeline) -> None:
    good: dict[str, object] = {"status": "x", "lines": [], "tags": [], "customer": None}
    entries: list[Words] = []
    for number, (field, text) in enumerate(NO_ROWS):
        state = {"id": number} | good | {field: json.loads(text)}
        entries += [upsert({"id": number}, state, type_="order.v1"), order(100 + number, "x", line(1, "a"))]
    broken_pipeline.transaction(*entries, stream="order")
    assert broken_pipeline.apply() == 1
    parked = broken_pipeline.rows("SELECT convert_from(key, 'UTF8')::json FROM cdc.dead_event ORDER BY id")
    assert [key for (key,) in parked] == [{"id": number} for number in range(len(NO_ROWS))]
    applied = [100 + number for number in range(len(NO_ROWS))]
    assert broken_pipeline.rows("SELECT id FROM replica.orders ORDER BY id") == [(id_,) for id_ in applied]
    assert lines_of(broken_pipeline) == [(id_, 1, "a") for id_ in applied]
    assert customers_of(broken_pipeline) == []


@pytest.mark.parametrize("key", [("id", "region"), ("region",)])
def test_a_key_of_texts_or_of_several_columns_finds_its_children(pipeline: Pipeline, key: tuple[str, ...]) -> None:
    columns = (column("id", "bigint"), column("region", "character(3)"), LINES)
    pipeline.describe(SchemaDocument("order", 1, "order", key, columns))
    pipeline.embeds = {"order.v1": {"lines": "replica.lines"}}

    def placed(id_: int, region: str, *lines: object) -> Words:
        state = {"id": id_, "region": region, "lines": lines}
        return upsert({name: state[name] for name in key}, state, type_="order.v1")

    pipeline.transaction(placed(1, "eu ", line(1, "a"), line(2, "b")), placed(2, "u's", line(1, "c")), stream="order")
    assert pipeline.apply() == 0
    gone = {name: {"id": 2, "region": "u's"}[name] for name in key}
    pipeline.transaction(placed(1, "eu ", line(2, "B")), delete(gone, "order.v1"), stream="order")
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT order_region, id, sku FROM replica.lines") == [("eu ", 2, "B")]
    assert dict(pipeline.rows(KEYS))["lines"] == " ".join([*(f"order_{name}" for name in key), "id"])


VALUES = {
    "bigint": 9007199254740993,
    "numeric": "1.50",
    "real": "NaN",
    "double precision": 1e-300,
    "boolean": True,
    "text": 'q"\\ \t\u20ac',
    "json": {"b": 1, "a": [1.0]},
    "jsonb": [{"lines": None}],
    "timestamp with time zone": "infinity",
    "timestamp without time zone": "0044-03-15 00:00:00 BC",
    "interval": "P1Y2M-3DT4H",
    "bytea": "\\x00ff",
    "integer[]": [[1, None], [3, 4]],
    "text[]": ["a", None, 'b,"{c}'],
    "int4range": "[1,5)",
    "inet": "10.0.0.0/8",
    "bit(3)": "101",
    "point": "(1,2)",
    "uuid": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
}


def test_a_value_of_an_embed_arrives_as_one_of_the_event_does(broken_pipeline: Pipeline) -> None:
    columns = [column(f"c{number}", type_) for number, type_ in enumerate(VALUES)]
    embeds = embed("many", *columns), embed("one", *columns, many=False)
    document = SchemaDocument("order", 1, "order", ("id",), (column("id", "integer"), *columns, *embeds))
    broken_pipeline.describe(document)
    broken_pipeline.embeds = {"order.v1": {name: f"replica.{name}" for name in ("many", "one")}}
    row = {f"c{number}": value for number, value in enumerate(VALUES.values())}
    nulls: dict[str, object] = dict.fromkeys(row)
    states = [{"id": 1} | row | {"many": [row], "one": row}, {"id": 2} | nulls | {"many": [nulls], "one": nulls}]
    entries = [upsert({"id": state["id"]}, state, type_="order.v1") for state in states]
    broken_pipeline.transaction(*entries, stream="order")
    assert broken_pipeline.apply() == 0
    for table in ("many", "one"):
        for name in row:
            same = f"SELECT o.{name}::text IS NOT DISTINCT FROM c.{name}::text FROM replica.orders o"
            both = broken_pipeline.rows(f"{same} JOIN replica.{table} c ON c.order_id = o.id")
            assert both == [(True,), (True,)], (table, name)


def test_a_run_sweeps_children_of_rows_that_the_source_has_no_more(pipeline: Pipeline) -> None:
    pipeline.transaction(order(1, "old", line(1, "a")), order(2, "old", line(1, "b"), tags="x"), stream="order")
    assert pipeline.apply() == 0
    pipeline.execute("INSERT INTO replica.lines (order_id, id) VALUES (77, 1)")
    seen = [*order(1, "new", line(2, "c")), b"origin", b"snapshot"]
    pipeline.transaction(mark("run-begin", "r", "order.v1"), seen, stream="order")
    pipeline.transaction(order(3, "live", line(1, "d")), mark("run-end", "r", "order.v1"), stream="order")
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 2, "c"), (3, 1, "d")]
    assert tags_of(pipeline) == []
    assert pipeline.rows("SELECT count(*) FROM cdc.replica WHERE run IS NOT NULL") == [(0,)]
