"""Embeds that are given a table, taken one away, or mapped wrongly: told, and filled again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sinks.errors import TableForeign, TableMisfit
from sinks.worker import Worker
from tests.contracts import expect_streams_as_promised
from tests.integration.order_harness import ORDER, embed, line, lines_of, order, tags_of
from tests.integration.sink_harness import Pipeline, column, command, mark, upsert, wait_until
from transforms.config import ConfigurationError
from transforms.schema import SchemaDocument

EMBEDS = {"lines": "replica.lines", "tags": "replica.tags"}
REQUEST = [(["order.v1"], "billing")]


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline of orders, whose embeds are columns until a test says otherwise."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.describe(ORDER)
        made.tables = {"order.v1": "replica.orders"}
        yield made
        expect_streams_as_promised(made.redis, made.keys)


def run_of(pipeline: Pipeline, run: str, *lines: dict[str, object]) -> None:
    """A snapshot run with order 1."""
    seen = [*order(1, "b", *lines, tags="t"), b"origin", b"snapshot"]
    pipeline.transaction(mark("run-begin", run, "order.v1"), seen, mark("run-end", run, "order.v1"), stream="order")


def replace_lines(pipeline: Pipeline) -> None:
    pipeline.execute(
        "CREATE TABLE replica.other (LIKE replica.lines INCLUDING ALL); DROP TABLE replica.lines;"
        " ALTER TABLE replica.other RENAME TO lines"
    )


def test_an_embed_that_gets_a_table_is_filled_by_a_snapshot_and_its_column_is_told(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_of(pipeline, "r1", line(1, "a"), line(2, "b"))
    assert pipeline.apply() == 0
    assert pipeline.requests() == []
    pipeline.embeds = {"order.v1": EMBEDS}
    assert pipeline.apply() == 0
    assert pipeline.requests() == REQUEST
    assert pipeline.apply() == 0
    assert pipeline.requests() == REQUEST, "once"
    told = "column lines stays as it is, since the embed has a table of its own: ALTER TABLE"
    assert told in caplog.text
    assert told in command(pipeline.config_file(tmp_path), "check")[1].replace("\n", " ")
    run_of(pipeline, "r2", line(2, "b"), line(3, "c"))
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 2, "b"), (1, 3, "c")]
    assert tags_of(pipeline) == [(1, 1, "t")]
    pipeline.execute("ALTER TABLE replica.orders DROP COLUMN lines, DROP COLUMN tags")
    assert "stays as it is" not in command(pipeline.config_file(tmp_path), "check")[1]


def test_an_embed_that_loses_its_table_becomes_a_column_that_a_snapshot_fills(
    pipeline: Pipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.embeds = {"order.v1": dict(EMBEDS)}
    run_of(pipeline, "r1", line(1, "a"))
    assert pipeline.apply() == 0
    del pipeline.embeds["order.v1"]["lines"]
    told = command(pipeline.config_file(tmp_path), "check")[1]
    assert "ok       table replica.lines: embed lines leaves it at the next start" in told, (
        "and nothing is to be dropped"
    )
    assert pipeline.apply() == 0
    assert pipeline.requests() == REQUEST
    assert "replica.lines: it is not kept any more" in caplog.text
    assert pipeline.apply() == 0
    assert pipeline.requests() == REQUEST, "once"
    findings = json.loads(command(pipeline.config_file(tmp_path), "check", "--json")[1])
    (left,) = [found for found in findings if found["thing"] == "table replica.lines"]
    assert left["verdict"] == "warning"
    run_of(pipeline, "r2", line(2, "b"))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT jsonb_path_query_array(lines, '$[*].sku') FROM replica.orders") == [(["b"],)]
    pipeline.execute(left["remedy"])
    caplog.clear()
    assert pipeline.apply() == 0
    assert "not kept any more" not in caplog.text

    pipeline.embeds = {"order.v1": EMBEDS}  # and back
    assert pipeline.apply() == 0
    assert pipeline.requests() == REQUEST * 2


def test_a_child_table_that_was_left_for_a_while_is_filled_again(pipeline: Pipeline) -> None:
    pipeline.embeds = {"order.v1": EMBEDS}
    run_of(pipeline, "r1", line(1, "a"))
    assert pipeline.apply() == 0
    pipeline.embeds = {"order.v1": {"tags": "replica.tags"}}
    assert pipeline.apply() == 0
    asked = len(pipeline.requests())
    pipeline.embeds = {"order.v1": EMBEDS}
    assert pipeline.apply() == 0
    assert len(pipeline.requests()) == asked + 1
    pipeline.tables = {"customer.v1": "replica.customers"}
    assert pipeline.apply() == 0
    pipeline.tables |= {"order.v1": "replica.orders"}
    assert pipeline.apply() == 0
    assert pipeline.requests()[asked + 1 :] == REQUEST
    run_of(pipeline, "r2", line(2, "b"))
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 2, "b")]


def test_a_worker_notices_that_another_table_has_taken_the_name_of_a_child(pipeline: Pipeline) -> None:
    pipeline.embeds = {"order.v1": EMBEDS}
    run_of(pipeline, "r1", line(1, "a"))
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(Worker(pipeline.config(), stop).run)
        wait_until(lambda: pipeline.status().get("applied_lsn") == pipeline.published, "the tables are filled")
        replace_lines(pipeline)
        wait_until(pipeline.requests, "the worker asks for a snapshot")
        stop.set()
        assert running.result() == 0
    assert pipeline.requests() == REQUEST


@pytest.mark.parametrize("how", ["dropped", "replaced"])
def test_a_child_table_that_another_takes_the_place_of_is_filled_again(pipeline: Pipeline, how: str) -> None:
    pipeline.embeds = {"order.v1": EMBEDS}
    run_of(pipeline, "r1", line(1, "a"))
    assert pipeline.apply() == 0
    if how == "replaced":
        replace_lines(pipeline)
    else:
        pipeline.execute("DROP TABLE replica.lines")
    assert pipeline.apply() == 0
    assert pipeline.requests() == REQUEST
    run_of(pipeline, "r2", line(1, "a"))
    assert pipeline.apply() == 0
    assert lines_of(pipeline) == [(1, 1, "a")]


def test_a_child_table_with_rows_of_someone_else_is_adopted_only_when_that_is_said(pipeline: Pipeline) -> None:
    pipeline.execute(
        "CREATE SCHEMA replica; CREATE TABLE replica.tags (order_id integer, ordinal integer, word text, mine text,"
        " PRIMARY KEY (ordinal, order_id)); INSERT INTO replica.tags VALUES (1, 5, 'old', ''), (7, 1, 'old', '')"
    )
    pipeline.embeds = {"order.v1": EMBEDS}
    with pytest.raises(TableForeign, match=r"replica\.tags has rows and was not made by a sink"):
        pipeline.apply()
    assert pipeline.rows("SELECT to_regclass('replica.orders')") == [(None,)]
    pipeline.adopt = True
    run_of(pipeline, "r1", line(1, "a"))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.tags") == [(1, 1, "t", None)]


@pytest.mark.parametrize("owner", ["another embed", "an event", "another sink"])
def test_a_table_of_someone_else_is_refused(pipeline: Pipeline, owner: str) -> None:
    if owner == "another embed":
        pipeline.embeds = {"order.v1": {"tags": "replica.lines"}}
    elif owner == "an event":
        pipeline.tables["customer.v1"] = "replica.lines"
    else:
        pipeline.embeds = {"order.v1": {"lines": "replica.lines"}}
    assert pipeline.apply("billing") == 0
    pipeline.tables = {"order.v1": "replica.other" if owner == "another sink" else "replica.orders"}
    pipeline.embeds = {"order.v1": {"lines": "replica.lines"}}
    pipeline.adopt = True
    with pytest.raises(TableForeign, match=r"replica\.lines belongs to event"):
        pipeline.apply("shipping" if owner == "another sink" else "billing")


def test_a_child_table_that_does_not_fit_is_told_with_the_sql_that_mends_it(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.execute("CREATE SCHEMA replica; CREATE TABLE replica.tags (order_id integer PRIMARY KEY, word integer)")
    pipeline.embeds = {"order.v1": EMBEDS}
    with pytest.raises(TableMisfit, match="column word is integer, its event has text") as caught:
        pipeline.apply()
    assert "its primary key is (order_id), the event's key is (order_id, ordinal)" in str(caught.value)
    findings = json.loads(command(pipeline.config_file(tmp_path), "check", "--json")[1])
    errors = [found["what"] for found in findings if found["verdict"] == "error"]
    assert len(errors) == 2
    code, printed, _ = command(pipeline.config_file(tmp_path), "tables")
    assert code == 0
    assert 'ALTER TABLE "replica"."tags" ALTER COLUMN "word" TYPE text' in printed
    pipeline.execute("DROP TABLE replica.tags")
    code, printed, _ = command(pipeline.config_file(tmp_path), "tables", "--apply")
    assert code == 0
    assert 'PRIMARY KEY ("order_id", "ordinal")' in printed
    assert command(pipeline.config_file(tmp_path), "tables")[1] == "-- nothing to do: the replica tables fit\n"
    run_of(pipeline, "r1", line(1, "a"))
    assert pipeline.apply() == 0
    assert pipeline.requests() == []
    assert tags_of(pipeline) == [(1, 1, "t")]


def test_a_new_field_of_an_embed_is_added_to_its_table(pipeline: Pipeline) -> None:
    pipeline.embeds = {"order.v1": {"tags": "replica.tags"}}
    assert pipeline.apply() == 0
    tags = embed("tags", column("word", "text"), column("color", "text"))
    columns = tuple(tags if each.name == "tags" else each for each in ORDER.columns)
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), columns))
    state = {"id": 1, "status": "x", "lines": [], "tags": [{"word": "w", "color": "red"}], "customer": None}
    pipeline.transaction(upsert({"id": 1}, state, type_="order.v1"), stream="order")
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT * FROM replica.tags") == [(1, 1, "w", "red")]


@pytest.mark.parametrize(
    ("name", "columns", "mistake"),
    [
        ("linse", [], "linse: no embed of event order.v1 (it has lines, tags, customer, own)"),
        ("status", [], "status: no embed of event order.v1 (it has lines, tags, customer, own)"),
        ("own", ["order_id"], "own: its table would have two columns order_id"),
        ("own", ["ordinal"], "own: its table would have two columns ordinal"),
    ],
)
def test_a_wrong_embed_is_told_with_its_path_before_anything_is_made(
    pipeline: Pipeline, tmp_path: Path, name: str, columns: list[str], mistake: str
) -> None:
    own = embed("own", *(column(each, "integer") for each in columns))
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), (*ORDER.columns, own)))
    pipeline.embeds = {"order.v1": {name: "replica.own"}}
    whole = f'sinks.billing.tables."order.v1".embeds.{mistake}'
    with pytest.raises(ConfigurationError) as caught:
        pipeline.apply()
    assert str(caught.value).startswith(whole)
    for arguments in (["check"], ["tables"], ["run", "--once"]) if name == "linse" else ():
        code, _, err = command(pipeline.config_file(tmp_path), *arguments)
        assert code == 2
        assert whole in err
    assert pipeline.rows("SELECT to_regnamespace('replica')") == [(None,)]
