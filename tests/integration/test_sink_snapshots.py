"""Snapshot runs sweep what the source does not hold, and sinks ask for the runs that they need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sinks.errors import StreamHole
from tests.integration.sink_harness import CUSTOMER, Pipeline, customer, delete, mark, truncate, upsert


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
    assert pipeline.rows("SELECT filled, run, seen_table FROM cdc.replica") == [(True, None, None)]


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
    assert pipeline.rows("SELECT relname FROM pg_class WHERE relname LIKE 'seen%%' AND relkind = 'r'") == []


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


def test_entries_removed_before_the_first_read_are_noticed(pipeline: Pipeline) -> None:
    assert pipeline.apply() == 0  # the checkpoint is at the beginning
    pipeline.transaction(customer(1, "a"))
    pipeline.transaction(customer(2, "b"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), maxlen=1, approximate=False)
    with pytest.raises(StreamHole):
        pipeline.apply()
