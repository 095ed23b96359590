"""Snapshot runs sweep what the source does not hold, and sinks ask for the runs that they need."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sinks.errors import StreamHole
from sinks.worker import Worker
from tests.integration.sink_harness import (
    CUSTOMER,
    Pipeline,
    column,
    customer,
    delete,
    mark,
    truncate,
    upsert,
    wait_until,
)
from transforms.schema import SchemaDocument


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


SNAPSHOT = (b"origin", b"snapshot")


def test_a_run_over_an_empty_replica_fills_it(pipeline: Pipeline) -> None:
    pipeline.transaction(mark("run-begin", "r1"))
    pipeline.transaction(customer(1, "a", *SNAPSHOT), customer(2, "b", *SNAPSHOT))
    pipeline.transaction(mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "a", 2: "b"}
    assert pipeline.rows("SELECT filled, run, unseen_table FROM cdc.replica") == [(True, None, None)]


@pytest.mark.parametrize("batches", ["one batch", "a batch for each transaction"])
def test_a_run_deletes_rows_that_it_did_not_see_and_keeps_live_ones(pipeline: Pipeline, batches: str) -> None:
    def applied() -> None:
        if batches != "one batch":
            assert pipeline.apply() == 0

    pipeline.transaction(*(customer(id_, "old") for id_ in range(1, 7)))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(20, "before the run"), mark("run-begin", "r1"))
    applied()
    pipeline.transaction(customer(1, "chunk", *SNAPSHOT), customer(2, "chunk", *SNAPSHOT))
    applied()
    pipeline.transaction(customer(10, "live"), customer(3, "live"), delete({"id": 2}), customer(11, "gone again"))
    applied()
    pipeline.transaction(delete({"id": 11}), upsert({"id": 4}, {"id": 4}, b"partial", b'["name"]'))
    applied()
    pipeline.transaction(mark("run-end", "r1"), customer(30, "after the run"))
    applied()
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "chunk", 3: "live", 4: "old", 10: "live", 30: "after the run"}
    assert pipeline.rows("SELECT relname FROM pg_class WHERE relname LIKE 'unseen%%' AND relkind = 'r'") == []


def whole_run(pipeline: Pipeline, *ids: int, run: str = "r1", to: str | None = None) -> None:
    """All of a run: the source holds just the rows `ids`."""
    pipeline.transaction(mark("run-begin", run, to=to))
    addressed = () if to is None else (b"to", to.encode())
    pipeline.transaction(*(customer(id_, run, *SNAPSHOT, *addressed) for id_ in ids), mark("run-end", run, to=to))


def test_rows_put_into_a_replica_by_hand_go_with_its_first_run(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "live"))
    assert pipeline.apply() == 0
    pipeline.execute("INSERT INTO replica.customers VALUES (2, 'by hand'), (3, 'by hand')")
    whole_run(pipeline, 1, 3)
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "r1", 3: "r1"}


def test_a_row_that_was_deleted_and_came_back_within_a_run_stays(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "old"), customer(2, "old"), customer(3, "old"))
    assert pipeline.apply() == 0
    pipeline.transaction(mark("run-begin", "r1"), delete({"id": 1}), delete({"id": 2}))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(1, "back"))
    pipeline.execute("DELETE FROM replica.customers WHERE id = 3")
    pipeline.transaction(customer(3, "chunk", *SNAPSHOT), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "back", 3: "chunk"}


def test_a_first_run_that_another_one_replaces_leaves_no_row_that_was_missed_meanwhile(pipeline: Pipeline) -> None:
    pipeline.transaction(mark("run-begin", "r1"))
    pipeline.transaction(customer(1, "chunk", *SNAPSHOT), customer(2, "deleted while not published", *SNAPSHOT))
    assert pipeline.apply() == 0
    whole_run(pipeline, 1, run="r2")
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "r2"}


@pytest.mark.parametrize("lost", ["the checkpoint", "entries", "the streams"])
def test_what_is_lost_amid_a_first_run_is_swept_by_the_next_one(pipeline: Pipeline, lost: str) -> None:
    pipeline.transaction(mark("run-begin", "r1"))
    pipeline.transaction(customer(1, "chunk", *SNAPSHOT), customer(2, "chunk", *SNAPSHOT))
    assert pipeline.apply() == 0
    pipeline.transaction(delete({"id": 2}))
    newest = pipeline.transaction(mark("run-end", "r1"))
    if lost == "the streams":
        pipeline.begin("two", CUSTOMER)
    else:
        pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    if lost == "the checkpoint":
        pipeline.execute("DELETE FROM cdc.checkpoint")
    elif lost == "entries":
        pipeline.redis.hset(pipeline.keys.passed, "billing customer", newest)
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "chunk", 2: "chunk"}
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    whole_run(pipeline, 1, run="r2", to="billing")
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "r2"}


@pytest.mark.parametrize("type_", ["bigint", "text", "uuid"])
def test_a_sweep_knows_keys_of_any_type(pipeline: Pipeline, type_: str) -> None:
    kinds: dict[str, list[object]] = {"bigint": [-7, 2**62], "text": ["1", 'a "b" % ä'], "uuid": ["0" * 32, "F" * 32]}
    keys = kinds[type_]
    pipeline.begin(
        "two", SchemaDocument("customer", 1, "customer", ("Id %s",), (column("Id %s", type_, nullable=False),))
    )

    def row(key: object, *more: bytes) -> list[bytes]:
        return upsert({"Id %s": key}, {"Id %s": key}, *more)

    pipeline.transaction(*(row(key) for key in keys))
    assert pipeline.apply() == 0
    before = pipeline.rows('SELECT "Id %%s" FROM replica.customers ORDER BY 1')
    assert len(before) == 2
    pipeline.transaction(mark("run-begin", "r1"), row(keys[1], *SNAPSHOT), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.rows('SELECT "Id %%s" FROM replica.customers') == [before[1]]


def test_a_run_that_an_older_version_began_is_asked_for_again(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "old"), customer(2, "old"))
    pipeline.transaction(mark("run-begin", "r1"))
    assert pipeline.apply() == 0
    [(unseen,)] = pipeline.rows("SELECT unseen_table FROM cdc.replica")
    pipeline.execute(f"DROP TABLE cdc.{unseen}; CREATE TABLE cdc.seen_customers (id integer PRIMARY KEY)")
    pipeline.execute("ALTER TABLE cdc.replica DROP COLUMN unseen_table, ADD COLUMN seen_table text")
    pipeline.execute("UPDATE cdc.replica SET seen_table = 'seen_customers'")
    pipeline.execute(
        "INSERT INTO cdc.rebuild (table_name, pipeline, sink, event, shadow, drop_columns, state, run)"
        " VALUES ('t', 'another', 'sink', 'e', 's', false, 'filling', 'r1')"
    )
    pipeline.transaction(customer(1, "chunk", *SNAPSHOT), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "chunk", 2: "old"}
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    assert pipeline.rows("SELECT to_regclass('cdc.seen_customers')") == [(None,)]
    assert pipeline.rows("SELECT run FROM cdc.rebuild") == [(None,)], "its sink asks for another one"
    whole_run(pipeline, 1, run="r2", to="billing")
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "r2"}


def test_only_the_run_that_began_last_may_sweep(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"), customer(2, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(mark("run-end", "unknown"))
    pipeline.transaction(mark("run-begin", "r1"))
    pipeline.transaction(customer(1, "b", *SNAPSHOT))
    assert pipeline.apply() == 0
    pipeline.transaction(mark("run-begin", "r2"))
    pipeline.transaction(customer(2, "c", *SNAPSHOT), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "b", 2: "c"}
    pipeline.transaction(mark("run-end", "r2"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "c"}


def test_a_run_for_another_sink_is_not_ours(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(mark("run-begin", "r1", to="other"), mark("run-end", "r1", to="other"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "a"}
    pipeline.transaction(mark("run-begin", "r2", to="billing"), mark("run-end", "r2", to="billing"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {}


def test_a_truncate_within_a_run(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"), customer(2, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(mark("run-begin", "r1"), customer(1, "b", *SNAPSHOT), truncate(), customer(3, "c"))
    pipeline.transaction(mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {3: "c"}


def test_partial_events_wait_for_the_snapshot_while_the_replica_is_being_filled(pipeline: Pipeline) -> None:
    partial = upsert({"id": 5}, {"id": 5}, b"partial", b'["name"]')
    pipeline.transaction(mark("run-begin", "r1"))
    pipeline.transaction(partial)
    pipeline.transaction(customer(5, "from the snapshot", *SNAPSHOT), mark("run-end", "r1"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {5: "from the snapshot"}
    pipeline.transaction(upsert({"id": 6}, {"id": 6}, b"partial", b'["name"]'))
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT convert_from(key, 'UTF8'), message FROM cdc.dead_event") == [
        ('{"id":6}', "RowMissing (SQLSTATE )")
    ]


def test_another_incarnation_is_started_from_its_beginning_and_asked_for_a_snapshot(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "old"), customer(2, "old"))
    assert pipeline.apply() == 0
    pipeline.lsn = 1000  # the source went back
    pipeline.begin("two", CUSTOMER)
    pipeline.transaction(customer(2, "new"), customer(3, "new"))
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    assert pipeline.customers() == {1: "old", 2: "new", 3: "new"}
    pipeline.transaction(mark("run-begin", "r1", to="billing"))
    pipeline.transaction(
        customer(2, "new", *SNAPSHOT), customer(3, "new", *SNAPSHOT), mark("run-end", "r1", to="billing")
    )
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "new", 3: "new"}
    assert len(pipeline.requests()) == 1


def test_a_hole_behind_the_checkpoint_stops_the_sink(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(2, "b"))
    pipeline.transaction(customer(3, "c"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    with pytest.raises(StreamHole) as caught:
        pipeline.apply()
    assert caught.value.exit_code == 3
    assert pipeline.customers() == {1: "a"}
    assert (pipeline.status()["state"], pipeline.status()["remedy"]) == ("stopped", caught.value.remedy)


def test_the_remedy_of_a_hole_starts_behind_it_and_asks_for_a_snapshot(pipeline: Pipeline) -> None:
    test_a_hole_behind_the_checkpoint_stops_the_sink(pipeline)
    pipeline.execute(str(pipeline.status()["remedy"]).rsplit(": ", 1)[1])
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    pipeline.transaction(customer(4, "d"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "a", 4: "d"}
    assert len(pipeline.requests()) == 1


def test_a_sink_that_comes_after_entries_were_trimmed_asks_for_a_snapshot(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    last = pipeline.transaction(customer(2, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    assert pipeline.apply() == 0
    assert pipeline.checkpoint() == last
    assert pipeline.requests() == [(["customer.v1"], "billing")]


def test_a_snapshot_that_redis_forgot_about_is_asked_for_again(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"), customer(2, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    assert pipeline.apply() == 0
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    pipeline.redis.delete(pipeline.keys.requests)
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    ((run,),) = pipeline.rows("SELECT asked_run FROM cdc.replica")
    pipeline.redis.delete(pipeline.keys.requests)  # the reader takes it
    pipeline.transaction(mark("run-begin", run, to="billing"))
    assert pipeline.apply() == 0
    pipeline.redis.delete(pipeline.keys.runs)
    assert pipeline.apply() == 0
    ((again,),) = pipeline.rows("SELECT asked_run FROM cdc.replica")
    rows = [customer(id_, "now", *SNAPSHOT, b"to", b"billing") for id_ in (1, 2)]
    pipeline.transaction(mark("run-begin", again, to="billing"), *rows, mark("run-end", again, to="billing"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "now", 2: "now"}
    assert pipeline.rows("SELECT asked_run FROM cdc.replica") == [(None,)]


def test_a_sink_far_behind_knows_its_own_run_that_the_reader_forgot(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"), customer(2, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    assert pipeline.apply() == 0
    ((asked,),) = pipeline.rows("SELECT asked_run FROM cdc.replica")
    pipeline.redis.delete(pipeline.keys.requests)  # the reader takes it
    whole_run(pipeline, 8, run="another")
    whole_run(pipeline, 1, 2, run=asked, to="billing")
    pipeline.redis.delete(pipeline.keys.runs)  # further runs of the event have begun since
    assert pipeline.apply() == 0
    assert set(pipeline.customers()) == {1, 2}
    assert pipeline.requests() == [], "one for each run that is forgotten would never come to an end"


def test_a_running_worker_notices_that_its_request_is_gone(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.worker.ASK_AGAIN_SECONDS", 0.2)
    pipeline.transaction(customer(1, "a"), customer(2, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    stop = threading.Event()
    with ThreadPoolExecutor() as threads:
        worker = threads.submit(Worker(pipeline.config(), stop).run)
        try:
            wait_until(pipeline.requests, "the snapshot is asked for")
            wait_until(lambda: pipeline.status().get("state") == "streaming", "the worker is at work")
            pipeline.redis.delete(pipeline.keys.requests)
            wait_until(pipeline.requests, "it is asked for again")
        finally:
            stop.set()
        assert worker.result() == 0


def test_entries_removed_before_the_first_read_are_brought_by_a_snapshot(pipeline: Pipeline) -> None:
    assert pipeline.apply() == 0  # the checkpoint is at the beginning
    pipeline.transaction(customer(1, "a"))
    newest = pipeline.transaction(customer(2, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    assert pipeline.apply() == 0
    assert (pipeline.customers(), pipeline.checkpoint()) == ({}, newest)
    assert pipeline.requests() == [(["customer.v1"], "billing")]


def test_a_sink_that_was_trimmed_past_begins_again_with_a_snapshot(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"), customer(2, "gone meanwhile"))
    assert pipeline.apply() == 0
    for id_ in range(3, 6):
        newest = pipeline.transaction(customer(id_, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=2, approximate=False)
    pipeline.redis.hset(pipeline.keys.passed, "billing customer", newest)
    assert pipeline.apply() == 0
    assert (pipeline.customers(), pipeline.checkpoint()) == ({1: "a", 2: "gone meanwhile"}, newest)
    assert pipeline.requests() == [(["customer.v1"], "billing")]
    rows = [customer(id_, "now", *SNAPSHOT, b"to", b"billing") for id_ in (1, 3, 4, 5)]
    pipeline.transaction(mark("run-begin", "r1", to="billing"), *rows, mark("run-end", "r1", to="billing"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == dict.fromkeys((1, 3, 4, 5), "now")
    assert len(pipeline.requests()) == 1


def test_a_mark_of_another_sink_or_stream_excuses_no_hole(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(2, "b"))
    newest = pipeline.transaction(customer(3, "c"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    pipeline.redis.hset(pipeline.keys.passed, mapping={"mail customer": newest, "billing order": newest})
    with pytest.raises(StreamHole):
        pipeline.apply()


def test_an_entry_deleted_from_the_midst_of_what_is_unread_stops_the_sink(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    ids = [pipeline.transaction(customer(id_, "b")) for id_ in range(2, 6)]
    pipeline.redis.xdel(pipeline.keys.stream("customer", 1), ids[1])
    with pytest.raises(StreamHole, match=f"entry {ids[1]} was deleted"):
        pipeline.apply()
    assert pipeline.customers() == {1: "a"}


def test_an_entry_deleted_after_it_was_applied_is_no_hole(pipeline: Pipeline) -> None:
    ids = [pipeline.transaction(customer(id_, "a")) for id_ in range(1, 4)]
    assert pipeline.apply() == 0
    pipeline.redis.xdel(pipeline.keys.stream("customer", 1), ids[1])
    pipeline.transaction(customer(4, "a"))
    assert pipeline.apply() == 0
    assert set(pipeline.customers()) == {1, 2, 3, 4}


@pytest.mark.parametrize("removed", ["all", "the newest"])
def test_a_stream_that_was_emptied_is_begun_at_the_snapshot_that_is_asked_for(pipeline: Pipeline, removed: str) -> None:
    key = pipeline.keys.stream("customer", 1)
    pipeline.transaction(customer(1, "a"))
    newest = pipeline.transaction(customer(2, "a"))
    if removed == "all":
        pipeline.redis.xtrim(key, maxlen=0, approximate=False)
    else:
        pipeline.redis.xdel(key, newest)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(Worker(pipeline.config(), stop).run)
        wait_until(lambda: pipeline.requests() == [(["customer.v1"], "billing")], "it asks for a snapshot")
        pipeline.transaction(mark("run-begin", "r1", to="billing"))
        wait_until(lambda: len(pipeline.requests()) == 2, "it begins, and asks for what it has not seen from the start")
        pipeline.transaction(
            mark("run-begin", "r2", to="billing"), customer(1, "a"), mark("run-end", "r2", to="billing")
        )
        wait_until(lambda: pipeline.customers() == {1: "a"}, "it holds what the source holds")
        stop.set()
        assert running.result() == 0


def test_what_a_sink_has_not_read_is_held_from_before_its_first_look(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply("billing") == 0
    (group,) = pipeline.redis.xinfo_groups(pipeline.keys.stream("customer", 1))
    assert group["last-delivered-id"].decode() == pipeline.checkpoint()


def test_a_stream_that_is_not_read_any_more_is_not_held(pipeline: Pipeline) -> None:
    order = SchemaDocument("order", 1, "order", ("id",), (column("id", "integer", nullable=False),))
    pipeline.describe(order)
    pipeline.tables["order.v1"] = "replica.orders"
    pipeline.transaction(upsert({"id": 1}, {"id": 1}, type_="order.v1"), stream="order")
    assert pipeline.apply() == 0
    del pipeline.tables["order.v1"]
    assert pipeline.apply() == 0
    assert pipeline.redis.xinfo_groups(pipeline.keys.stream("order", 1)) == []
