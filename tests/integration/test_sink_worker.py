"""The worker as a process: it waits, stands by, takes over, ends when told to, and never applies twice."""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sinks.applying import Applying
from sinks.checkpoint import Checkpoint, Checkpoints
from sinks.errors import TargetUnreachable
from sinks.feed import Batch
from sinks.pace import Pace
from sinks.session import Session
from sinks.worker import Worker
from tests.integration.sink_harness import (
    CUSTOMER,
    Pipeline,
    SinkProcess,
    column,
    command,
    customer,
    upsert,
    wait_until,
)
from transforms.position import LSN
from transforms.schema import SchemaDocument


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


@pytest.fixture
def config(pipeline: Pipeline, tmp_path: Path) -> Path:
    return pipeline.config_file(tmp_path)


def exists(pipeline: Pipeline, table: str) -> bool:
    return pipeline.rows("SELECT to_regclass(%s)", table) != [(None,)]


def holds(pipeline: Pipeline, customers: dict[int, str]) -> bool:
    return exists(pipeline, "replica.customers") and pipeline.customers() == customers


def count_applications(pipeline: Pipeline) -> None:
    """Have the replica count how often each state of each row is written."""
    pipeline.execute(
        "CREATE TABLE replica.written (id integer, name text, times integer, PRIMARY KEY (id, name));"
        "CREATE FUNCTION replica.count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO replica.written VALUES (NEW.id, NEW.name, 1)"
        "  ON CONFLICT (id, name) DO UPDATE SET times = replica.written.times + 1; RETURN NULL; END $$;"
        "CREATE TRIGGER count AFTER INSERT OR UPDATE ON replica.customers FOR EACH ROW EXECUTE FUNCTION replica.count()"
    )


def suspend_between_transactions(worker: SinkProcess, pipeline: Pipeline) -> None:
    """SIGSTOP; one that holds a row's lock would only be followed when the server ends its session."""

    def states() -> set[str]:
        query = "SELECT state FROM pg_stat_activity WHERE application_name LIKE %s"
        return {state for (state,) in pipeline.rows(query, f"cdc-sink {pipeline.name}/%")}

    while True:
        worker.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: "active" not in states(), "its statement to end")
        if states() == {"idle"}:
            return
        worker.process.send_signal(signal.SIGCONT)


def test_a_worker_waits_for_its_pipeline_applies_and_ends_on_sigterm(pipeline: Pipeline, config: Path) -> None:
    pipeline.redis.delete(pipeline.keys.meta, pipeline.keys.schema)
    with SinkProcess(config, "run") as worker:
        wait_until(lambda: pipeline.status().get("state") == "starting", "the worker waits for the pipeline")
        pipeline.begin("one", CUSTOMER)
        last = pipeline.transaction(customer(1, "a"))
        wait_until(lambda: holds(pipeline, {1: "a"}), "the row is there")
        wait_until(lambda: pipeline.status().get("applied_lsn") == pipeline.published, "the status says so")
        pipeline.redis.hset(pipeline.keys.meta, "published", str(LSN(pipeline.lsn + 5000)))
        applied = str(LSN(pipeline.lsn + 5000))
        wait_until(lambda: pipeline.status()["applied_lsn"] == applied, "an idle worker follows `published`")
        started = time.monotonic()
        assert worker.end() == 0
        assert time.monotonic() - started < 5
        assert "ending without" not in worker.output()[2]
    status = pipeline.status()
    assert (status["state"], status["reason"], status["lag_bytes"], status["lag_seconds"]) == ("stopped", None, 0, 0.0)
    assert status["streams"] == {"customer": last}
    groups = pipeline.redis.xinfo_groups(pipeline.keys.stream("customer", 1))
    assert [(group["name"], group["last-delivered-id"]) for group in groups] == [(b"billing", last.encode())]
    assert pipeline.rows("SELECT owner, applied_lsn::text FROM cdc.checkpoint") == [(None, applied)]


def test_an_unfinished_transaction_waits_for_its_end(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    with_worker = threading.Event()
    worker = Worker(pipeline.config(), with_worker)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_until(lambda: holds(pipeline, {1: "a"}), "the first transaction is applied")
        pipeline.transaction(customer(2, "half"), customer(1, "half"), end=False)
        key = pipeline.keys.stream("customer", 1)
        pipeline.redis.execute_command("XADD", key, f"{pipeline.lsn}-9000000", *customer(3, "whole", b"end", b"1"))
        wait_until(lambda: holds(pipeline, {1: "half", 2: "half", 3: "whole"}), "all of it is applied")
        pipeline.transaction(customer(4, "half"), end=False)
        pipeline.transaction(customer(5, "next"))
        wait_until(lambda: 5 in pipeline.customers(), "another commit LSN ends a transaction too")
        assert pipeline.customers()[4] == "half"
    finally:
        with_worker.set()
        thread.join()


def test_a_transaction_larger_than_a_batch_is_applied_in_parts(pipeline: Pipeline) -> None:
    pipeline.transaction(*(customer(id_, "x") for id_ in range(12_000)), end=False)
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT count(*) FROM replica.customers") == [(12_000,)]


def test_large_entries_make_small_batches(pipeline: Pipeline) -> None:
    pipeline.transaction(*(customer(id_, "small") for id_ in range(500)))
    for id_ in range(40):
        pipeline.transaction(customer(id_, "x" * 1_000_000))
    assert pipeline.apply() == 0
    assert pipeline.rows("SELECT count(*) FROM replica.customers WHERE length(name) = 1000000") == [(40,)]


def test_once_ends_with_what_was_there_at_its_start(pipeline: Pipeline, config: Path) -> None:
    pipeline.describe(SchemaDocument("order", 1, "order", ("id",), CUSTOMER.columns))
    pipeline.tables["order.v1"] = "replica.orders"
    pipeline.transaction(*(customer(id_, "a") for id_ in range(10)))
    pipeline.transaction(upsert({"id": 1}, {"id": 1, "name": "o"}, type_="order.v1"), stream="order")
    code, out, err = command(pipeline.config_file(config.parent), "run", "--once", "--log-format", "json")
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert len(pipeline.customers()) == 10
    assert pipeline.rows("SELECT * FROM replica.orders") == [(1, "o")]


def test_once_is_cut_short_by_a_signal(pipeline: Pipeline, config: Path) -> None:
    pipeline.redis.delete(pipeline.keys.schema)
    with SinkProcess(config, "run", "--once") as worker:
        wait_until(lambda: pipeline.status().get("state") == "starting", "it waits for the schema")
        assert worker.end() == 130


def test_a_server_that_never_answered_is_given_up(pipeline: Pipeline) -> None:
    pipeline.target_dsn = "postgresql://postgres@127.0.0.1:1/nothing"
    worker = Worker(pipeline.config(), threading.Event(), connect_timeout_seconds=0.3)
    with pytest.raises(TargetUnreachable) as caught:
        worker.run()
    assert caught.value.exit_code == 4


def test_errors_are_one_message_with_its_remedy(pipeline: Pipeline, config: Path, tmp_path: Path) -> None:
    code, _, err = command(config, "run", sink="unknown")
    assert (code, err.splitlines()[0].startswith("error: "), "  remedy: " in err) == (2, True, True)
    pipeline.target_dsn = "host=127.0.0.1 port=1 password=planted dbname=x"
    code, _, err = command(pipeline.config_file(tmp_path), "run", "--connect-timeout", "0.1")
    assert (code, "planted" in err) == (4, False)


def test_a_lost_connection_is_made_again(pipeline: Pipeline) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=Worker(pipeline.config(), stop).run)
    thread.start()
    try:
        for id_ in range(4):
            pipeline.transaction(customer(id_, "a"))
            wait_until(lambda id_=id_: holds(pipeline, dict.fromkeys(range(id_ + 1), "a")), "the row is there")  # type: ignore[misc]
            terminate = (
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'cdc-sink%%'"
            )
            assert pipeline.rows(terminate) == [(1,)]
            pipeline.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    finally:
        stop.set()
        thread.join()


def test_a_lost_tail_of_redis_is_waited_for(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    lost = pipeline.transaction(customer(2, "b"))
    assert pipeline.apply() == 0
    key = pipeline.keys.stream("customer", 1)
    pipeline.redis.xdel(key, lost)
    first = pipeline.redis.xrange(key)[0]
    pipeline.redis.delete(key)  # only so can a stream's last id go back
    pipeline.redis.xadd(key, first[1], id=first[0])
    stop = threading.Event()
    thread = threading.Thread(target=Worker(pipeline.config(), stop).run)
    thread.start()
    try:
        wait_until(lambda: pipeline.status()["state"] == "reconnecting", "the worker waits for the reader")
        assert "lost its tail" in pipeline.status()["reason"]
        pipeline.redis.execute_command("XADD", key, lost, *customer(2, "b", b"end", b"1"))
        pipeline.transaction(customer(3, "c"))
        wait_until(lambda: holds(pipeline, {1: "a", 2: "b", 3: "c"}), "it goes on by itself")
    finally:
        stop.set()
        thread.join()


def test_a_locked_replica_holds_the_worker_up_and_nothing_is_parked(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    stop = threading.Event()
    outcome: list[int] = []
    thread = threading.Thread(target=lambda: outcome.append(Worker(pipeline.config(), stop).run()))
    with psycopg.connect(pipeline.target_dsn) as application:
        application.execute("LOCK TABLE replica.customers IN EXCLUSIVE MODE")
        pipeline.transaction(customer(1, "b"))
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: pipeline.rows(waiting) == [(1,)], "the worker waits for the lock")
        stop.set()
        started = time.monotonic()
        thread.join(60)
        assert time.monotonic() - started < 5, "a worker that waits for a lock still ends in time"
        assert not thread.is_alive()
    assert outcome == [0]
    assert pipeline.customers() == {1: "a"}
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "b"}


@pytest.mark.any_version
def test_a_second_worker_takes_over_when_the_first_is_killed(pipeline: Pipeline, config: Path) -> None:
    assert pipeline.apply() == 0
    count_applications(pipeline)
    owner = "SELECT owner FROM cdc.checkpoint"
    with SinkProcess(config, "run") as first:
        pipeline.transaction(customer(1, "a"))
        wait_until(lambda: holds(pipeline, {1: "a"}), "the first works")
        [(first_owner,)] = pipeline.rows(owner)
        with SinkProcess(config, "run") as second:
            pipeline.transaction(customer(2, "b"))
            wait_until(lambda: holds(pipeline, {1: "a", 2: "b"}), "the first goes on")
            assert pipeline.rows(owner) == [(first_owner,)]
            assert pipeline.status()["state"] == "streaming"
            first.kill()
            pipeline.transaction(customer(3, "c"))
            wait_until(lambda: 3 in pipeline.customers(), "the second has taken over")
            assert pipeline.rows(owner) != [(first_owner,)]
            assert second.end() == 0
    assert pipeline.rows("SELECT max(times) FROM replica.written") == [(1,)]


def test_a_worker_that_ends_lets_the_next_one_go_on_at_once(pipeline: Pipeline, config: Path) -> None:
    with SinkProcess(config, "run") as first:
        pipeline.transaction(customer(1, "a"))
        wait_until(lambda: holds(pipeline, {1: "a"}), "the first works")
        assert first.end() == 0
    assert pipeline.rows("SELECT owner FROM cdc.checkpoint") == [(None,)], "there is no lease to wait for"
    pipeline.transaction(customer(2, "b"))
    started = time.monotonic()
    assert pipeline.apply() == 0
    assert time.monotonic() - started < 3
    assert holds(pipeline, {1: "a", 2: "b"})


def test_once_beside_a_live_worker_waits_until_that_has_applied_everything(pipeline: Pipeline, config: Path) -> None:
    with SinkProcess(config, "run") as first:
        pipeline.transaction(customer(1, "a"))
        wait_until(lambda: holds(pipeline, {1: "a"}), "the first works")
        pipeline.transaction(customer(2, "b"))
        assert pipeline.apply() == 0
        assert pipeline.customers() == {1: "a", 2: "b"}
        assert first.end() == 0


def test_kills_at_any_moment_never_apply_a_change_twice_and_never_lose_one(pipeline: Pipeline, config: Path) -> None:
    assert pipeline.apply() == 0
    count_applications(pipeline)
    chance = random.Random(7)
    expected: dict[int, str] = {}
    for kill in range(6):
        for number in range(60):
            ids = [chance.randrange(50) for _ in range(100)]
            entries: list[list[bytes]] = []
            for id_ in ids:
                expected[id_] = f"{kill}-{number}-{len(entries)}"
                entries.append(customer(id_, expected[id_]))
            pipeline.transaction(*entries)
        pipeline.execute("UPDATE cdc.checkpoint SET lease_until = clock_timestamp()")  # the dead one's lease is over
        before = pipeline.checkpoint()
        with SinkProcess(config, "run") as worker:
            wait_until(lambda before=before: pipeline.checkpoint() != before, "the worker works")  # type: ignore[misc]
            threading.Event().wait(chance.uniform(0, 0.05))
            worker.kill()
    pipeline.execute("UPDATE cdc.checkpoint SET lease_until = clock_timestamp()")
    assert pipeline.apply() == 0
    assert pipeline.customers() == dict(sorted(expected.items()))
    assert pipeline.rows("SELECT max(times) FROM replica.written") == [(1,)]


def test_a_commit_whose_reply_is_lost_is_not_applied_again(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline.apply() == 0
    count_applications(pipeline)
    committed = Checkpoints.advance
    losses = iter([True])

    def advance(self: Checkpoints, *arguments: Any) -> Checkpoint:
        result = committed(self, *arguments)
        if next(losses, False):
            self._database.script(b"COMMIT")  # the work is done ...
            self._database.close()  # ... and the reply is lost
        return result

    monkeypatch.setattr(Checkpoints, "advance", advance)
    pipeline.transaction(customer(1, "a"), customer(2, "b"))
    assert pipeline.apply() == 0
    assert next(losses, None) is None
    assert pipeline.rows("SELECT id, times FROM replica.written ORDER BY id") == [(1, 1), (2, 1)]


def test_a_worker_that_was_suspended_does_not_write_behind_its_successor(pipeline: Pipeline, config: Path) -> None:
    assert pipeline.apply() == 0
    count_applications(pipeline)
    with SinkProcess(config, "run") as first:
        pipeline.transaction(customer(1, "a"))
        wait_until(lambda: holds(pipeline, {1: "a"}), "the first works")
        first.process.send_signal(signal.SIGSTOP)
        pipeline.execute("UPDATE cdc.checkpoint SET lease_until = clock_timestamp()")
        with SinkProcess(config, "run") as second:
            pipeline.transaction(customer(1, "b"))
            wait_until(lambda: holds(pipeline, {1: "b"}), "the second works")
            first.process.send_signal(signal.SIGCONT)
            pipeline.transaction(customer(1, "c"))
            wait_until(lambda: holds(pipeline, {1: "c"}), "one of them goes on")
            assert (first.end(), second.end()) == (0, 0)
    assert pipeline.rows("SELECT max(times) FROM replica.written") == [(1,)]


def test_news_of_a_stream_waits_for_one_batch_of_those_that_are_behind(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = ["one", "two", "three"]
    for name in [*large, "news"]:
        columns = (column("id", "integer", nullable=False),)
        pipeline.describe(SchemaDocument(name, 1, name, ("id",), columns))
        pipeline.tables[f"{name}.v1"] = f"replica.{name}"

    def publish(name: str, id_: int) -> None:
        pipeline.transaction(upsert({"id": id_}, {"id": id_}, type_=f"{name}.v1"), stream=name)

    for name in large:
        for id_ in range(8):
            publish(name, id_)
    turns: list[str] = []
    apply = Applying.apply

    def noting(self: Applying, session: Session, batch: Batch, *rest: Any) -> int:
        if batch.stream in large:
            publish("news", len(turns))
        turns.append(batch.stream)
        return apply(self, session, batch, *rest)

    monkeypatch.setattr(Applying, "apply", noting)
    monkeypatch.setattr(Pace, "entries", lambda _, stream, **__: 2 if stream in large else 100)
    assert pipeline.apply() == 0
    assert [turns.count(name) for name in large] == [4, 4, 4]
    behind = turns[turns.index("news") :]
    assert not any({first, second} <= set(large) for first, second in itertools.pairwise(behind))
