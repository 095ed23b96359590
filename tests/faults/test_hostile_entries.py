"""Entries that no reader wrote: parked or refused, never applied, and no checkpoint moves to where the source is not.

Whoever may XADD to a stream can write what looks like the reader's own work, which only Redis' access rules prevent.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from sinks.worker import Worker
from tests.integration.sink_harness import (
    TS,
    Pipeline,
    Words,
    command,
    customer,
    mark,
    truncate,
    upsert,
    use_technique,
    wait_until,
)
from tests.processes import Pipeline as WholePipeline
from tests.processes import closing
from tests.processes import wait_until as wait_for
from transforms import wire
from transforms.errors import MalformedEntry

BEFORE = {1: "a", 2: "b"}
AFTER = BEFORE | {3: "later"}
END = (b"end", b"1")


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.transaction(*(customer(id_, name) for id_, name in BEFORE.items()))
        assert made.apply() == 0
        yield made


def forge(pipeline: Pipeline, *entries: Words, entry_id: str | None = None) -> str:
    """Somebody writes to the stream; returns the last entry's id."""
    pipeline.lsn += 100
    written = ""
    for number, words in enumerate(entries, 1):
        written = entry_id or f"{pipeline.lsn}-{number}000000"
        pipeline.redis.execute_command("XADD", pipeline.keys.stream("customer", 1), written, *words)
    return written


def state(text: bytes, *more: bytes) -> Words:
    return upsert({"id": 9}, text, *more, *END)


def key_to_delete(text: bytes) -> Words:
    return [*wire.delete_words(b"customer.v1", text, TS, b"7"), *END]


def words(**fields: str) -> Words:
    return [word.encode() for pair in fields.items() for word in pair]


# --- what stops the sink, before anything of it is applied -----------------------------------------------------------

FOREIGN: dict[str, tuple[Words, str]] = {
    "no field of ours": (words(hello="world"), "has no field 'op'"),
    "an op that nobody knows": (words(op="explode", type="customer.v1", end="1"), "unknown op"),
    "no state": (words(op="upsert", type="customer.v1", key='{"id":9}', ts="1", tx="7", end="1"), "no field 'state'"),
    "a field twice": (customer(9, "x", b"state", b'{"id":10,"name":"y"}', *END), "has a field twice"),
    "a type with SQL in it": (
        upsert({"id": 9}, {"id": 9}, b"rev", b"1", *END, type_='customer.v1"; DROP SCHEMA replica; --'),
        "its type is not of the form",
    ),
    "a type with a NUL": (upsert({"id": 9}, {"id": 9}, b"rev", b"1", *END, type_="customer.v1\0"), "its type is not"),
    "a revision that is no number": (customer(9, "x", b"rev", b"9" * 30, *END), "its rev is not a number"),
    "an addressee that is no text": (customer(9, "x", b"to", b"\xff", *END), "wire format"),
    "absent fields with SQL in their names": (
        customer(1, "x", b"partial", b'["x\\"; DROP SCHEMA replica; --"]', *END),
        "names fields that its event customer.v1 does not have",
    ),
    "an absent field with a NUL in its name": (customer(1, "x", b"partial", b'["\\u0000"]', *END), "names fields that"),
    "an absent field whose name is no text": (customer(1, "x", b"partial", b'["\\ud800"]', *END), "wire format"),
    "quoted fields that no row has": (customer(1, "x", b"quoted", b'["other"]', *END), "names fields that its event"),
    "a list that is nested too deep": (customer(1, "x", b"partial", b"[" * 100_000, *END), "wire format"),
    "a mark that is nested too deep": ([*words(op="mark", mark="run-begin", ts="1"), b"data", b"[" * 99_999], "format"),
    "a mark with what is no text": ([*words(op="mark", mark="x", ts="1", data='{"run":"\\ud800"}'), *END], "format"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_entry_that_is_not_of_the_format_stops_the_sink_until_it_is_removed(pipeline: Pipeline, name: str) -> None:
    entry, said = FOREIGN[name]
    before = pipeline.checkpoint()
    written = forge(pipeline, entry)
    pipeline.transaction(customer(3, "later"))
    key = pipeline.keys.stream("customer", 1)
    with pytest.raises(MalformedEntry) as refused:
        pipeline.apply()
    assert said in str(refused.value)
    assert f"{key}: entry {written}" in str(refused.value)
    assert f"XDEL {key} " in refused.value.remedy
    assert (pipeline.customers(), pipeline.checkpoint()) == (BEFORE, before)
    assert (pipeline.status()["state"], pipeline.status()["dead"]) == ("stopped", 0)


IDS = [
    "18446744073709551615-18446744073709551615",
    "900000000000000-1000000",
    "1200-18446744073709551615",
    "1200-1000000000000000000",
    "1200-999999",
    "1200-0",
]


@pytest.mark.parametrize("entry_id", IDS)
def test_an_id_that_no_reader_gives_is_refused(pipeline: Pipeline, entry_id: str) -> None:
    before = pipeline.checkpoint()
    forge(pipeline, customer(9, "forged", *END), entry_id=entry_id)
    with pytest.raises(MalformedEntry, match=f"entry {entry_id}"):
        pipeline.apply()
    assert (pipeline.customers(), pipeline.checkpoint()) == (BEFORE, before)


def test_what_the_remedy_says_brings_the_sink_back(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    written = forge(pipeline, words(hello="world"))
    pipeline.transaction(customer(3, "later"))
    code, _, said = command(config, "run", "--once")
    assert (code, "Traceback" in said) == (3, False)
    assert pipeline.redis.xdel(pipeline.keys.stream("customer", 1), written) == 1
    code, _, said = command(config, "run", "--once")
    assert code == 3
    pipeline.execute(said[said.index("DELETE FROM cdc.checkpoint") :].strip())
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")], "a snapshot brings what it has not seen"


def test_a_revision_that_is_not_stored_is_waited_for_and_named(pipeline: Pipeline) -> None:
    before = pipeline.checkpoint()
    written = forge(pipeline, customer(9, "x", b"rev", b"99", *END))
    stop = threading.Event()
    thread = threading.Thread(target=Worker(pipeline.config(), stop).run)
    thread.start()
    try:
        wait_until(lambda: pipeline.status()["state"] == "reconnecting", "it waits")
        assert f"entry {written} names" in pipeline.status()["reason"]
        assert "XDEL" in pipeline.status()["remedy"]
    finally:
        stop.set()
        thread.join()
    assert (pipeline.customers(), pipeline.checkpoint()) == (BEFORE, before)


# --- what is parked --------------------------------------------------------------------------------------------------

SIZES = [10_000_000, pytest.param(100_000_000, marks=pytest.mark.soak)]
"""Of one field: more than is read at once; and the long form."""
REFUSED: dict[str, tuple[list[Words], str]] = {
    "a state that is two rows": ([state(b'{"id":8,"name":"x"},{"id":9,"name":"y"}')], "22032"),
    "a state that is a list": ([state(b"[]")], "22023"),
    "a state that is null": ([state(b"null")], "22023"),
    "a state cut off": ([state(b'{"id":9,"na')], "22P02"),
    "a state without a key": ([state(b'{"name":"x"}')], "23502"),
    "a state nested deeper than a stack": ([state(b'{"id":9,"name":' + b"[" * 99_999 + b"]" * 99_999 + b"}")], "54001"),
    "a state with a NUL": ([state(b'{"id":9,"name":"\0"}')], "22021"),
    "a state that is no text": ([state(b'{"id":9,"name":"\xff"}')], "22021"),
    "a key that is two": ([key_to_delete(b'{"id":1},{"id":2}')], "22032"),
    "a key without its field": ([key_to_delete(b"{}")], "22032"),
    "a key with a NUL": ([key_to_delete(b'{"id":1}\0')], "22021"),
    "a key cut off": ([key_to_delete(b'{"id":')], "22P02"),
}


@pytest.mark.parametrize("technique", ["json", "copy"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_row_is_parked_and_the_rest_flows(
    pipeline: Pipeline, name: str, technique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_technique(technique, monkeypatch)
    entries, sqlstate = REFUSED[name]
    written = forge(pipeline, *entries)
    last = pipeline.transaction(customer(3, "later"))
    assert pipeline.apply() == 1
    assert (pipeline.customers(), pipeline.checkpoint()) == (AFTER, last)
    place = "(commit_lsn - '0/0')::text || '-' || ordinal"
    assert pipeline.rows(f"SELECT sqlstate, {place} FROM cdc.dead_event") == [(sqlstate, written)]


def test_entries_that_enclose_a_row_do_not_make_it_vanish(pipeline: Pipeline) -> None:
    opens = upsert({"id": 8}, b'{"id":8,"other":[{}')
    closes = upsert({"id": 9}, b'{}],"name":"y"}', *END)
    forge(pipeline, opens, customer(2, "the reader's"), closes)
    assert pipeline.apply() == 1
    assert pipeline.customers() == {1: "a", 2: "the reader's"}
    assert pipeline.rows("SELECT sqlstate FROM cdc.dead_event") == [("22P02",), ("22P02",)]


def test_a_key_that_is_no_text_parks_its_row_where_keys_are_compared(pipeline: Pipeline) -> None:
    pipeline.transaction(mark("run-begin", "r1"))  # from now on seen keys are noted
    assert pipeline.apply() == 0
    forge(pipeline, upsert(b'{"id":\xff}', b'{"id":\xff}', *END), upsert(b'{"id":1\0}', b'{"id":1\0}', *END))
    pipeline.transaction(customer(3, "later"))
    assert pipeline.apply() == 1
    assert pipeline.customers() == AFTER
    assert pipeline.rows("SELECT count(*) FROM cdc.dead_event") == [(2,)]


@pytest.mark.parametrize("size", SIZES)
def test_a_field_of_any_size_is_parked_or_read_over(pipeline: Pipeline, size: int) -> None:
    large = b" " * size
    forge(pipeline, customer(3, "later", b"other", large, *END))
    forge(pipeline, upsert(b'{"id":4' + large + b"}", {"id": 4, "name": "key"}, *END))
    forge(pipeline, state(b'{"id":9,"name":"' + large))
    last = pipeline.transaction(customer(5, "last"))
    assert pipeline.apply() == 1
    assert (pipeline.customers(), pipeline.checkpoint()) == (AFTER | {4: "key", 5: "last"}, last)
    assert pipeline.rows("SELECT sqlstate, length(state) > %s FROM cdc.dead_event", size) == [("22P02", True)]


def test_a_commit_time_that_is_no_number_is_read_over(pipeline: Pipeline) -> None:
    entry = customer(3, "later", *END)
    entry[9] = b"soon"
    forge(pipeline, entry)
    assert pipeline.apply() == 0
    assert pipeline.customers() == AFTER


# --- what is none of the sink's business -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        upsert({"id": 9}, {"id": 9}, *END, type_="nothing.v1"),
        customer(9, "forged", b"to", b"billing", *END),  # rows of a snapshot for this sink alone, which asked for none
        customer(9, "forged", b"to", b"another", *END),
        mark("no such mark", "r1"),
    ],
    ids=["an event that is not mapped", "for us", "for another sink", "a mark that nobody knows"],
)
def test_what_a_sink_has_no_use_for_is_passed_by(pipeline: Pipeline, entry: Words) -> None:
    forge(pipeline, entry)
    pipeline.transaction(customer(3, "later"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == AFTER


# --- marks of snapshot runs ------------------------------------------------------------------------------------------


def replay(pipeline: Pipeline, run: str) -> None:
    forge(pipeline, mark("run-begin", run), [*mark("run-end", run), *END])


def test_marks_of_a_run_that_nobody_knows_sweep_nothing(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    replay(pipeline, "forged")
    pipeline.transaction(customer(3, "later"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == AFTER
    assert caplog.text.count("that the reader does not know there: ignored") == 1
    assert pipeline.rows("SELECT run, unseen_table FROM cdc.replica") == [(None, None)]
    assert pipeline.requests() == [(["customer.v1"], "billing")], "had it been the reader's, nothing were lost"


def test_the_marks_of_a_run_that_is_over_are_not_taken_twice(pipeline: Pipeline) -> None:
    rows = [customer(id_, name, b"origin", b"snapshot") for id_, name in BEFORE.items()]
    pipeline.transaction(mark("run-begin", "r1"), *rows, mark("run-end", "r1"))
    ends = {"begun": f"{pipeline.lsn}-1000000", "ended": f"{pipeline.lsn}-4000000"}
    pipeline.store_run("r1", "customer.v1", state="done", **ends)
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT filled FROM cdc.replica") == [(True,)]
    replay(pipeline, "r1")
    assert pipeline.apply() == 0
    assert pipeline.customers() == BEFORE


def test_the_marks_of_a_run_for_all_are_not_those_of_one_for_a_sink(pipeline: Pipeline) -> None:
    pipeline.store_run("r1", "customer.v1", state="running", to="another")
    replay(pipeline, "r1")
    assert pipeline.apply() == 0
    assert pipeline.customers() == BEFORE


def test_a_run_in_hand_is_not_disturbed_by_a_forged_one(pipeline: Pipeline) -> None:
    pipeline.transaction(mark("run-begin", "r1"))
    forge(pipeline, mark("run-begin", "forged"))
    pipeline.transaction(customer(1, "chunk", b"origin", b"snapshot"), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "chunk"}


@pytest.mark.parametrize("stored", [b"nonsense", b"[" * 99_999, b'{"event":"customer.v1","begun":7}', b"[]"])
def test_a_run_that_is_stored_as_nonsense_is_named(pipeline: Pipeline, stored: bytes) -> None:
    pipeline.transaction(mark("run-begin", "r1"))
    pipeline.redis.hset(pipeline.keys.runs, "r1", stored)
    with pytest.raises(MalformedEntry) as refused:
        pipeline.apply()
    assert "status:snapshots" in refused.value.remedy
    assert pipeline.customers() == BEFORE


def test_a_truncate_cannot_be_told_from_the_readers(pipeline: Pipeline) -> None:
    """Written down here because it is the limit of what a sink can see: access rules are what keeps others out."""
    forge(pipeline, [*truncate(), *END])
    assert pipeline.apply() == 0
    assert pipeline.customers() == {}


# --- what the reader says of a future entry --------------------------------------------------------------------------

SHOP = """
[events.customer]
table = "customers"
columns = ["id", "name"]
[sinks.billing]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
"""


def test_an_entry_of_the_future_stops_reader_and_sink_and_a_snapshot_heals_both(
    source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path
) -> None:
    def rows() -> list[tuple[object, ...]]:
        with psycopg.connect(target_dsn) as target:
            return target.execute("SELECT id, name FROM replica.customers ORDER BY id").fetchall()

    def there_are(expected: list[tuple[object, ...]]) -> Callable[[], bool]:
        return lambda: rows() == expected

    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE customers (id integer PRIMARY KEY, name text)")
        source.execute("INSERT INTO customers VALUES (1, 'a'), (2, 'b')")
        shop = WholePipeline(pipeline_name, source_dsn, redis_url, tmp_path, SHOP, {"TARGET_DSN": target_dsn})
        with closing(shop):
            shop.run("cdc.cli", "run", "--once")
            shop.run("sinks.cli", "run", "billing", "--once")
            entries = cast(list[Any], shop.redis.xrange(shop.keys.stream("customer", 1)))
            places = [entry_id.decode() for entry_id, fields in entries if b"mark" in fields]
            (run,) = (json.loads(stored) for stored in cast(list[bytes], shop.redis.hvals(shop.keys.runs)))
            assert [run["begun"], run["ended"]] == places, "by which a sink knows its marks"
            future = "9000000000000000000-1000000"
            forged = customer(1, "forged", *END)
            shop.redis.xadd(
                shop.keys.stream("customer", 1), dict(zip(forged[::2], forged[1::2], strict=True)), id=future
            )
            said = shop.run("sinks.cli", "run", "billing", "--once", expect=3)
            assert f"entry {future}" in said
            source.execute("INSERT INTO customers VALUES (3, 'c')")
            said = shop.run("cdc.cli", "run", "--once", expect=3)
            assert "`cdc snapshot --all`" in said
            assert rows() == [(1, "a"), (2, "b")]
            shop.run("cdc.cli", "snapshot", "--all")
            shop.run("cdc.cli", "run", "--once")
            shop.sink("billing")
            wait_for("the new epoch", there_are([(1, "a"), (2, "b"), (3, "c")]))
