"""Faults of the replica's database and of the way to it: retried, applied once, never parked, never in silence."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cdc.demo.binaries import account
from cdc.demo.servers import PostgresServer
from sinks import postgres
from sinks.errors import StreamHole
from sinks.worker import Worker
from tests import servers
from tests.faults.proxy import Proxy, Way
from tests.integration.sink_harness import Pipeline, customer, wait_until

SETTINGS = {"wal_writer_delay": "10s", "deadlock_timeout": "300ms", "autovacuum": "off"}
"""What is committed without waiting for the disk is lost in a crash; deadlocks are looked for soon."""


@pytest.fixture(scope="module")
def target_server() -> Iterator[PostgresServer]:
    if servers.use_docker():
        pytest.skip("needs embedded servers")
    with PostgresServer.start(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def pipeline(redis_url: str, target_server: PostgresServer, pipeline_name: str) -> Iterator[Pipeline]:
    with (
        servers.database(target_server, "target") as dsn,
        Pipeline(redis_url, dsn, pipeline_name) as made,
    ):
        assert made.apply() == 0
        made.execute(
            "CREATE TABLE replica.written (id integer, name text, times integer, PRIMARY KEY (id, name));"
            "CREATE FUNCTION replica.count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO replica.written VALUES (NEW.id, NEW.name, 1)"
            "  ON CONFLICT (id, name) DO UPDATE SET times = replica.written.times + 1; RETURN NULL; END $$;"
            "CREATE TRIGGER count AFTER INSERT OR UPDATE ON replica.customers FOR EACH ROW"
            " EXECUTE FUNCTION replica.count()"
        )
        yield made
        assert made.rows("SELECT max(times) FROM replica.written") == [(1,)], "nothing is applied twice"
        assert made.rows("SELECT count(*) FROM cdc.dead_event") == [(0,)], "nothing is parked"


@contextmanager
def working(pipeline: Pipeline) -> Iterator[None]:
    """A worker at work."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(Worker(pipeline.config(), stop).run)
        try:
            yield
        finally:
            stop.set()
        assert running.result() == 0


def holds(pipeline: Pipeline, expected: dict[int, str]) -> Callable[[], bool]:
    return lambda: pipeline.customers() == expected


def told(pipeline: Pipeline, reason: str) -> Callable[[], bool]:
    """Whether the worker tries again, and says why."""
    return lambda: (
        pipeline.status().get("state") == "reconnecting" and reason in (pipeline.status().get("reason") or "")
    )


WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'cdc-sink %%'"


# --- the reply of COMMIT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_committed", [True, False], ids=["reply lost", "command lost"])
def test_a_commit_of_unknown_outcome_is_asked_for_and_nothing_is_applied_twice(
    pipeline: Pipeline, is_committed: bool
) -> None:
    cuts: list[str] = []

    def cut_commits(sent: bytes) -> bool:
        """Hang up when the checkpoint is to be moved with COMMIT: at once, or once that is done and not answered."""
        checkpoint = pipeline.checkpoint()
        if not (b"UPDATE cdc.checkpoint SET commit_lsn" in sent and b"COMMIT" in sent) or checkpoint in cuts:
            return False
        cuts.append(checkpoint)
        if not is_committed:
            return True
        proxy.black_hole(Way.DOWN)
        threading.Thread(target=cut_when_committed, args=(checkpoint,)).start()
        return False

    def cut_when_committed(checkpoint: str) -> None:
        with psycopg.connect(direct) as beside:
            query = "SELECT (commit_lsn - '0/0')::text || '-' || ordinal FROM cdc.checkpoint"
            wait_until(lambda: beside.execute(query).fetchone() != (checkpoint,), "the commit is done")
        proxy.cut()
        proxy.heal()

    direct, parts = pipeline.target_dsn, conninfo_to_dict(pipeline.target_dsn)
    with Proxy(str(parts["host"]), int(str(parts["port"])), cut_commits) as proxy:
        pipeline.target_dsn = make_conninfo(direct, host="127.0.0.1", port=proxy.port)
        with working(pipeline):
            for number in range(3):
                pipeline.transaction(customer(1, f"{number}"), customer(number + 2, "new"))
                wait_until(holds(pipeline, {1: f"{number}"} | dict.fromkeys(range(2, number + 3), "new")), "applied")
    assert len(cuts) >= 3


# --- locks, deadlocks, time-outs, terminated sessions ----------------------------------------------------------------


def test_an_exclusive_lock_that_outlasts_lock_timeout_is_waited_for(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres, "_BEGIN", postgres._BEGIN.replace("lock_timeout = '10s'", "lock_timeout = '150ms'"))
    pipeline.transaction(customer(1, "a"))
    with psycopg.connect(pipeline.target_dsn) as application, working(pipeline):
        wait_until(holds(pipeline, {1: "a"}), "it works")
        application.execute("LOCK TABLE replica.customers IN ACCESS EXCLUSIVE MODE")
        pipeline.transaction(customer(1, "b"), customer(2, "b"))
        wait_until(told(pipeline, "lock timeout (SQLSTATE 55P03)"), "it tells what it waits for")
        wait_until(lambda: not pipeline.rows(WAITING), "it gives up")
        wait_until(lambda: pipeline.rows(WAITING), "it tries again")
        application.commit()
        wait_until(holds(pipeline, {1: "b", 2: "b"}), "it goes on")
    assert "parked" not in caplog.text


def test_a_deadlock_is_tried_again(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    pipeline.transaction(customer(1, "a"), customer(2, "a"))
    with psycopg.connect(pipeline.target_dsn) as application, working(pipeline):
        wait_until(holds(pipeline, {1: "a", 2: "a"}), "it works")
        application.execute("SET deadlock_timeout = '1min'")  # so that the worker is the one that is ended
        application.execute("SELECT FROM replica.customers WHERE id = 2 FOR UPDATE")
        pipeline.transaction(customer(1, "b"), customer(2, "b"))
        wait_until(lambda: pipeline.rows(WAITING), "it holds row 1 and waits for row 2")
        application.execute("SELECT FROM replica.customers WHERE id = 1 FOR UPDATE")
        wait_until(lambda: "deadlock detected (SQLSTATE 40P01)" in caplog.text, "it is ended")
        application.commit()
        wait_until(holds(pipeline, {1: "b", 2: "b"}), "it goes on")


@pytest.mark.parametrize(("function", "sqlstate"), [("pg_terminate_backend", "57P01"), ("pg_cancel_backend", "57014")])
def test_a_session_that_is_ended_amid_a_batch_is_made_again(
    pipeline: Pipeline, function: str, sqlstate: str, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.transaction(customer(1, "a"))
    with psycopg.connect(pipeline.target_dsn) as application, working(pipeline):
        wait_until(holds(pipeline, {1: "a"}), "it works")
        application.execute("SELECT FROM replica.customers FOR UPDATE")
        pipeline.transaction(customer(1, "b"))
        wait_until(lambda: pipeline.rows(WAITING), "it waits for the row")
        [(pid,)] = pipeline.rows(WAITING)
        pipeline.execute(f"SELECT {function}({pid})")
        wait_until(lambda: f"SQLSTATE {sqlstate}" in caplog.text, "it tells so")
        application.commit()
        wait_until(holds(pipeline, {1: "b"}), "it goes on")


def test_a_statement_timeout_of_the_role_or_database_does_not_reach_a_batch(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    database = conninfo_to_dict(pipeline.target_dsn)["dbname"]
    pipeline.execute(f"ALTER DATABASE {database} SET statement_timeout = '50ms'")
    pipeline.execute(
        "CREATE FUNCTION replica.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2);"
        " RETURN NULL; END $$; CREATE TRIGGER slow AFTER INSERT ON replica.customers EXECUTE FUNCTION replica.slow()"
    )
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "a"}
    assert "trying again" not in caplog.text


# --- a full disk -----------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(pipeline: Pipeline, directory: Path) -> Iterator[Callable[[], None]]:
    """Have the replica on a disk that is full; what is given makes room.

    Where nothing may be mounted here, a trigger says what Postgres says then.
    """
    user = account()
    options = "size=24m" + ("" if user is None else f",uid={user.pw_uid},gid={user.pw_gid},mode=700")
    mounting = ["mount", "-t", "tmpfs", "-o", options, "statecast-test", str(directory)]
    try:
        is_mounted = subprocess.run(mounting, capture_output=True).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    with ExitStack() as stack:
        if not is_mounted:
            pipeline.execute(
                "CREATE TABLE replica.full_disk (); INSERT INTO replica.full_disk DEFAULT VALUES;"
                "CREATE FUNCTION replica.write() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF EXISTS (SELECT FROM replica.full_disk) THEN RAISE 'full' USING ERRCODE = 'disk_full'; END IF;"
                " RETURN NEW; END $$; CREATE TRIGGER write BEFORE INSERT OR UPDATE ON replica.customers"
                " FOR EACH ROW EXECUTE FUNCTION replica.write()"
            )
            yield lambda: pipeline.execute("DELETE FROM replica.full_disk")
            return
        stack.callback(lambda: subprocess.run(["umount", "-l", str(directory)], check=True))
        ballast = directory / "ballast"
        ballast.write_bytes(b"x" * (20 << 20))
        pipeline.execute(f"CREATE TABLESPACE small LOCATION '{directory}'")
        stack.callback(lambda: pipeline.execute("DROP TABLESPACE small"))
        stack.callback(lambda: pipeline.execute("ALTER TABLE replica.customers SET TABLESPACE pg_default"))
        pipeline.execute("ALTER TABLE replica.customers SET TABLESPACE small")
        yield ballast.unlink


def test_a_full_disk_is_waited_for(
    pipeline: Pipeline, target_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    directory = target_server.directory / "small"
    directory.mkdir()
    if (user := account()) is not None:
        shutil.chown(directory, user.pw_uid, user.pw_gid)
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    with small_disk(pipeline, directory) as make_room, working(pipeline):
        before = pipeline.checkpoint()
        pipeline.transaction(*(customer(id_, "x" * 1_000) for id_ in range(2, 6_000)))
        wait_until(told(pipeline, "SQLSTATE 53100"), "it tells so")
        assert (pipeline.checkpoint(), pipeline.customers()) == (before, {1: "a"})
        make_room()
        wait_until(lambda: len(pipeline.customers()) == 5_999, "it goes on by itself")
    assert "parked" not in caplog.text


# --- a target that is older than it was ------------------------------------------------------------------------------


def lose_a_commit(pipeline: Pipeline, server: PostgresServer) -> str:
    """A crash takes what was applied last; returns the checkpoint that is left."""
    pipeline.transaction(customer(1, "safe"))
    assert pipeline.apply() == 0
    kept = pipeline.checkpoint()
    database = conninfo_to_dict(pipeline.target_dsn)["dbname"]
    pipeline.execute(f"CHECKPOINT; ALTER DATABASE {database} SET synchronous_commit = off")
    pipeline.execute("SELECT pg_switch_wal()")  # flushes, and the next page is new
    pipeline.transaction(customer(1, "lost"), customer(2, "lost"))
    assert pipeline.apply() == 0
    server.stop("immediate")
    server.start_again()
    pipeline.connect_again()
    assert (pipeline.checkpoint(), pipeline.customers()) == (kept, {1: "safe"}), "rows and checkpoint went together"
    return kept


def test_what_a_crash_took_from_an_asynchronous_target_is_applied_again(
    pipeline: Pipeline, target_server: PostgresServer
) -> None:
    lose_a_commit(pipeline, target_server)
    pipeline.transaction(customer(3, "new"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "lost", 2: "lost", 3: "new"}


def test_what_a_crash_took_and_the_stream_has_no_more_is_a_hole_that_is_named(
    pipeline: Pipeline, target_server: PostgresServer
) -> None:
    lose_a_commit(pipeline, target_server)
    last = pipeline.transaction(customer(3, "new"))
    pipeline.redis.xtrim(pipeline.keys.stream("customer", 1), minid=last, approximate=False)
    with pytest.raises(StreamHole) as hole:
        pipeline.apply()
    assert pipeline.customers() == {1: "safe"}
    pipeline.execute(hole.value.remedy[hole.value.remedy.index("DELETE FROM") :])
    assert pipeline.apply() == 0
    assert pipeline.requests() == [(["customer.v1"], "billing")]


def test_a_target_restored_to_an_older_state_under_a_running_worker_goes_on_from_there(
    pipeline: Pipeline, target_server: PostgresServer, tmp_path: Path
) -> None:
    pipeline.transaction(customer(1, "old"), customer(2, "old"))
    assert pipeline.apply() == 0
    target_server.stop()
    copy(target_server.data_directory, target_server.directory / "backup")
    target_server.start_again()
    pipeline.connect_again()
    with working(pipeline):
        pipeline.transaction(customer(1, "new"), customer(3, "new"))
        wait_until(holds(pipeline, {1: "new", 2: "old", 3: "new"}), "it works")
        target_server.stop()
        pipeline.transaction(customer(4, "meanwhile"))
        shutil.rmtree(target_server.data_directory)
        (target_server.directory / "backup").rename(target_server.data_directory)
        target_server.start_again()
        pipeline.connect_again()
        wait_until(holds(pipeline, {1: "new", 2: "old", 3: "new", 4: "meanwhile"}), "it is where it was, and further")


def test_a_target_failed_over_to_an_older_host_goes_on_from_there(
    pipeline: Pipeline, target_server: PostgresServer
) -> None:
    pipeline.transaction(customer(1, "old"), customer(2, "old"))
    assert pipeline.apply() == 0
    target_server.stop()
    try:
        with PostgresServer.start(settings=SETTINGS) as other:
            other.stop()
            shutil.rmtree(other.data_directory)
            copy(target_server.data_directory, other.data_directory)
            with (other.data_directory / "postgresql.conf").open("a") as settings:
                settings.write(f"unix_socket_directories = '{other.socket_directory}'\n")
            target_server.start_again()
            pipeline.connect_again()
            first = pipeline.target_dsn
            ports = f"{target_server.port},{other.port}"
            pipeline.target_dsn = make_conninfo(first, host="127.0.0.1,127.0.0.1", port=ports)
            with working(pipeline):
                pipeline.transaction(customer(1, "new"), customer(3, "new"))
                wait_until(holds(pipeline, {1: "new", 2: "old", 3: "new"}), "it works on the first host")
                target_server.stop("immediate")
                pipeline.transaction(customer(4, "meanwhile"))
                other.start_again()
                pipeline.connect_again()
                wait_until(holds(pipeline, {1: "new", 2: "old", 3: "new", 4: "meanwhile"}), "it goes on on the second")
            pipeline.target.close()
            pipeline.target_dsn = first
    finally:
        target_server.stop()
        target_server.start_again()
    pipeline.connect_again()


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, capture_output=True)
