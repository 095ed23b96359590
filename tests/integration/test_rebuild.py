"""A replica table is filled anew beside the one that is read, and the two are swapped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sinks.rebuild.command import RebuildCommand, Wishes
from tests.integration.sink_harness import (
    Pipeline,
    customer,
    delete,
    mark,
)

SNAPSHOT = (b"origin", b"snapshot")
OWN = (*SNAPSHOT, b"to", b"billing")


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """With a replica of three customers, which a snapshot has filled."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        made.transaction(mark("run-begin", "r0"), *(customer(id_, "a", *SNAPSHOT) for id_ in (1, 2, 3)))
        made.transaction(mark("run-end", "r0"))
        assert made.apply() == 0
        yield made


def ask(pipeline: Pipeline, keep_as: str | None = None, *, drop_columns: bool = False) -> list[str]:
    """`cdc-sink rebuild billing customer`; returns what it says."""
    said: list[str] = []
    rebuild = RebuildCommand(pipeline.config(), "customer")
    rebuild.ask(Wishes(keep_as, drop_columns), said.append)
    rebuild.close()
    return said


def begin(pipeline: Pipeline) -> str:
    """The worker begins a rebuild that was asked for; returns the id of the run that it asks the reader for."""
    assert pipeline.apply() == 0
    ((run,),) = pipeline.rows("SELECT run FROM cdc.rebuild WHERE state = 'filling'")
    return str(run)


def own_mark(name: str, run: str) -> list[bytes]:
    return mark(name, run, to="billing")


def state(pipeline: Pipeline) -> tuple[str, str | None]:
    ((found, reason),) = pipeline.rows("SELECT state, reason FROM cdc.rebuild")
    return found, reason


def tables(pipeline: Pipeline) -> list[str]:
    return [
        row[0]
        for row in pipeline.rows(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'replica'::regnamespace ORDER BY 1"
        )
    ]


def test_the_table_that_was_filled_takes_the_place_of_the_old_one(pipeline: Pipeline) -> None:
    ask(pipeline)
    ((before,),) = pipeline.rows("SELECT 'replica.customers'::regclass::oid")
    run = begin(pipeline)
    assert tables(pipeline) == ["customers", "customers_rebuild"]
    pipeline.transaction(customer(4, "live"), delete({"id": 1}))
    pipeline.transaction(own_mark("run-begin", run))
    pipeline.transaction(customer(2, "read", *OWN), customer(3, "read", *OWN))
    pipeline.transaction(customer(3, "live"))
    pipeline.transaction(customer(4, "read", *OWN))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "a", 3: "live", 4: "live"}, "the snapshot's rows are for the new table alone"
    assert dict(pipeline.rows("SELECT id, name FROM replica.customers_rebuild")) == {2: "read", 3: "live", 4: "read"}
    pipeline.transaction(own_mark("run-end", run))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {2: "read", 3: "live", 4: "read"}
    assert pipeline.rows("SELECT 'replica.customers'::regclass::oid") != [(before,)]
    assert tables(pipeline) == ["customers"]
    assert state(pipeline) == ("done", None)
    assert pipeline.rows("SELECT table_name, event, filled, run, seen_table FROM cdc.replica") == [
        ("replica.customers", "customer.v1", True, None, None)
    ]
    pipeline.transaction(customer(5, "after"), delete({"id": 2}))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {3: "live", 4: "read", 5: "after"}
