"""What entries do to a replica's rows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.sink_harness import Pipeline, column, customer, delete, truncate, upsert, use_technique
from transforms.schema import SchemaDocument


@pytest.fixture(params=["json", "copy"], autouse=True)
def technique(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_technique(request.param, monkeypatch)


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


def test_inserts_updates_and_deletes_reach_the_replica(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "Ada"), customer(2, "Bob"))
    last = pipeline.transaction(customer(1, "Ada L."), delete({"id": 2}))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "Ada L."}
    assert pipeline.checkpoint() == last
    assert pipeline.rows("SELECT applied_lsn::text, owner FROM cdc.checkpoint") == [(pipeline.published, None)]


def test_a_second_run_applies_what_came_since(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "Ada"))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(2, "Bob"), delete({"id": 1}))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "Bob"}
    assert pipeline.requests() == []


def test_a_batch_may_change_a_key_many_times(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"), delete({"id": 1}), customer(2, "a"))  # the key moves on, and back
    pipeline.transaction(delete({"id": 2}), customer(3, "a"), delete({"id": 3}), customer(1, "b"))
    pipeline.transaction(customer(2, "c"), customer(2, "d"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "b", 2: "d"}


def test_rows_that_are_there_and_rows_that_are_new_come_in_one_batch(pipeline: Pipeline) -> None:
    pipeline.transaction(*(customer(id_, "old") for id_ in (3, 50, 98)))
    assert pipeline.apply() == 0
    pipeline.transaction(*(customer(id_, f"new {id_}") for id_ in range(1, 101)))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {id_: f"new {id_}" for id_ in range(1, 101)}


def test_a_truncate_removes_what_came_before_it_and_nothing_else(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(2, "b"), truncate(), customer(3, "c"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {3: "c"}


def test_a_partial_upsert_leaves_the_absent_fields_alone(pipeline: Pipeline) -> None:
    document = SchemaDocument(
        "customer", 1, "customer", ("id",), (column("id", "integer"), column("name", "text"), column("note", "text"))
    )
    pipeline.describe(document)
    pipeline.transaction(
        upsert({"id": 1}, {"id": 1, "name": "a", "note": "long"}),
        upsert({"id": 2}, {"id": 2, "name": "x", "note": "y"}),
    )
    partial = (b"partial", b'["note"]')
    pipeline.transaction(
        upsert({"id": 1}, {"id": 1, "name": "b"}, *partial),
        upsert({"id": 1}, {"id": 1, "name": "c"}, *partial),
        upsert({"id": 2}, {"id": 2, "name": None}, *partial),
    )
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.customers ORDER BY id") == [(1, "c", "long"), (2, None, "y")]


def test_quoted_json_keeps_json_null_spaces_and_escapes_that_postgres_functions_refuse(pipeline: Pipeline) -> None:
    fields = (column("id", "integer"), column("loose", "json"), column("tight", "jsonb"), column("note", "text"))
    pipeline.describe(SchemaDocument("customer", 1, "customer", ("id",), fields))
    loose = ["null", ' {"b": 1,  "a":2} ', '{"x":"\\u0000 \\ud800"}']
    quoted = (b"quoted", b'["loose","tight"]')
    pipeline.transaction(
        *(
            upsert({"id": id_}, {"id": id_, "loose": text, "tight": "null", "note": "null"}, *quoted)
            for id_, text in enumerate(loose)
        ),
        upsert({"id": 9}, b'{"id":9,"loose":{"b":1, "b":2},"tight":null,"note":null}'),
    )
    assert pipeline.apply() == 0
    rows = pipeline.rows("SELECT loose::text, tight::text, note FROM replica.customers ORDER BY id")
    assert rows == [(text, "null", "null") for text in loose] + [('{"b":1, "b":2}', None, None)]


def test_quoted_fields_of_a_partial_upsert(pipeline: Pipeline) -> None:
    fields = (column("id", "integer"), column("loose", "json"), column("note", "text"))
    pipeline.describe(SchemaDocument("customer", 1, "customer", ("id",), fields))
    pipeline.transaction(upsert({"id": 1}, {"id": 1, "loose": None, "note": "kept"}))
    pipeline.transaction(
        upsert({"id": 1}, {"id": 1, "loose": "null"}, b"partial", b'["note"]', b"quoted", b'["loose"]')
    )
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT loose::text, note FROM replica.customers") == [("null", "kept")]


def test_values_of_many_types_come_out_equal(pipeline: Pipeline) -> None:
    values = {
        "numeric(20,5)": ("123456789012345.67890", "123456789012345.67890"),
        "bigint": (9223372036854775807, "9223372036854775807"),
        "double precision": ("NaN", "NaN"),
        "real": (1.5, "1.5"),
        "boolean": (True, "true"),
        "timestamp with time zone": ("2024-02-29T12:34:56.789012Z", "2024-02-29 12:34:56.789012+00"),
        "timestamp without time zone": ("infinity", "infinity"),
        "date": ("0044-03-15 BC", "0044-03-15 BC"),
        "interval": ("P1Y2M-3DT-4H", "P1Y2M-3DT-4H"),
        "uuid": ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        "bytea": ("\\x00ff10", "\\x00ff10"),
        "inet": ("10.0.0.1/8", "10.0.0.1/8"),
        "bit varying(9)": ("10101", "10101"),
        "int4range": ("[1,5)", "[1,5)"),
        "money": ("$1,234.50", "$1,234.50"),
        "integer[]": ([[1, 2], [3, None]], "{{1,2},{3,NULL}}"),
        "text[]": (["a,b", 'c"d', "NULL", None], '{"a,b","c\\"d","NULL",NULL}'),
        "character varying(30)": ("héllo 🎉", "héllo 🎉"),
    }
    columns = [column(f"c {number}%", type_) for number, type_ in enumerate(values)]
    pipeline.describe(SchemaDocument("customer", 1, "customer", ("id",), (column("id", "integer"), *columns)))
    state = {"id": 1} | {c.name: value for c, (value, _) in zip(columns, values.values(), strict=True)}
    pipeline.transaction(upsert({"id": 1}, state))
    assert pipeline.apply() == 0
    pipeline.execute("SET intervalstyle = iso_8601; SET timezone = 'UTC'; SET lc_monetary = 'C'")
    shown = ", ".join(f'"c {number}%%"::text' for number in range(len(columns)))
    assert list(pipeline.rows(f"SELECT {shown} FROM replica.customers")[0]) == [text for _, text in values.values()]


def test_names_of_any_kind_are_only_names(pipeline: Pipeline) -> None:
    odd = ['a"b', "c%s", "{}", "d e\n;--", "ключ", "$1"]
    pipeline.tables = {"customer.v1": 'replica."x"" %s {} ;--"'}
    document = SchemaDocument("customer", 1, "customer", (odd[0], odd[1]), tuple(column(name, "text") for name in odd))
    pipeline.describe(document)
    key = {odd[0]: "1", odd[1]: "2"}
    state = {name: str(number) for number, name in enumerate(odd, 1)}
    pipeline.transaction(upsert(key, state), upsert({odd[0]: "x", odd[1]: "y"}, state | {odd[0]: "x", odd[1]: "y"}))
    pipeline.transaction(
        upsert(
            key, {name: value for name, value in state.items() if name != "$1"} | {"ключ": "new"}, b"partial", b'["$1"]'
        ),
        delete({odd[0]: "x", odd[1]: "y"}),
    )
    assert pipeline.apply() == 0
    assert pipeline.rows('SELECT * FROM replica."x"" %%s {} ;--"') == [("1", "2", "3", "4", "new", "6")]


def test_a_table_of_nothing_but_its_key(pipeline: Pipeline) -> None:
    pipeline.describe(
        SchemaDocument("customer", 1, "customer", ("a", "b"), (column("a", "integer"), column("b", "text")))
    )
    pipeline.transaction(upsert({"a": 1, "b": "x"}, {"a": 1, "b": "x"}), upsert({"a": 2, "b": "x"}, {"a": 2, "b": "x"}))
    pipeline.transaction(upsert({"a": 1, "b": "x"}, {"a": 1, "b": "x"}), delete({"a": 2, "b": "x"}))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.customers") == [(1, "x")]


def test_events_that_share_a_stream_and_those_that_are_not_mapped(pipeline: Pipeline) -> None:
    order = SchemaDocument("order", 1, "customer", ("id",), (column("id", "integer"), column("paid", "boolean")))
    pipeline.describe(order)
    pipeline.tables["order.v1"] = "replica.orders"
    pipeline.transaction(
        customer(1, "a"),
        upsert({"id": 7}, {"id": 7, "paid": True}, type_="order.v1"),
        upsert({"id": 8}, {"id": 8}, type_="other.v1"),
        customer(2, "for another sink", b"to", b"elsewhere"),
    )
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "a"}
    assert pipeline.rows("SELECT * FROM replica.orders") == [(7, True)]


def test_each_revision_writes_its_own_columns_also_within_one_batch(pipeline: Pipeline) -> None:
    fields = (column("id", "integer"), column("name", "text"))
    first = SchemaDocument("customer", 1, "customer", ("id",), fields)
    second = SchemaDocument("customer", 1, "customer", ("id",), (*fields, column("email", "text"))).succeed(first)
    pipeline.describe(first)
    pipeline.transaction(customer(1, "a"), customer(2, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(2, "b"), customer(3, "b"))
    pipeline.describe(second)
    pipeline.transaction(upsert({"id": 1}, {"id": 1, "name": "c", "email": "e"}, b"rev", b"2"))
    assert pipeline.apply() == 0
    rows = [(1, "c", "e"), (2, "b", None), (3, "b", None)]
    assert pipeline.rows("SELECT * FROM replica.customers ORDER BY id") == rows


def test_keys_compare_as_their_index_does(pipeline: Pipeline) -> None:
    pipeline.describe(SchemaDocument("customer", 1, "customer", ("n",), (column("n", "numeric"), column("v", "text"))))
    pipeline.transaction(upsert({"n": "1.0"}, {"n": "1.0", "v": "a"}), upsert({"n": "2"}, {"n": "2", "v": "b"}))
    assert pipeline.apply() == 0
    pipeline.transaction(delete({"n": "1.0"}), upsert({"n": "1.00"}, {"n": "1.00", "v": "c"}), delete({"n": "2.000"}))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT n::text, v FROM replica.customers") == [("1.00", "c")]


@pytest.mark.parametrize(
    ("key", "types"), [(("code",), ("text",)), (("code", "part"), ("text", "bigint")), (("code",), ("smallint",))]
)
def test_keys_of_any_type_are_found_again(pipeline: Pipeline, key: tuple[str, ...], types: tuple[str, ...]) -> None:
    fields = tuple(column(name, type_, nullable=False) for name, type_ in zip(key, types, strict=True))
    document = SchemaDocument("customer", 1, "customer", key, (*fields, column("name", "text")))
    pipeline.describe(document)
    words = {"text": "a\\b", "bigint": 7, "smallint": -3}
    first, second = ({name: words[type_] for name, type_ in zip(key, types, strict=True)} for _ in range(2))
    pipeline.transaction(upsert(first, {**first, "name": "old"}))
    assert pipeline.apply() == 0
    other = {**second, key[-1]: "b" if types[-1] == "text" else 8}
    pipeline.transaction(upsert(second, {**second, "name": "new"}), upsert(other, {**other, "name": "other"}))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT name FROM replica.customers ORDER BY name") == [("new",), ("other",)]
