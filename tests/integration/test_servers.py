"""The embedded servers start, survive what tests do to them, and leave nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis

from cdc.demo.binaries import EmbeddedServersMissing
from cdc.demo.scratch import processes_in, scratch_directory
from cdc.demo.server_process import EmbeddedServerFailed
from cdc.demo.servers import PostgresServer, ValkeyServer
from tests import servers

DEADLINE_SECONDS = 90.0

OWNER = """
import json, os, sys
from cdc.demo.scratch import scratch_directory
from cdc.demo.servers import PostgresServer, ValkeyServer
postgres, valkey = PostgresServer.start(), ValkeyServer.start()
print(json.dumps([str(scratch_directory()), postgres.pid, valkey.pid]), flush=True)
sys.stdin.readline()
"""


def wait_until(condition: Callable[[], bool], promise: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_SECONDS:.0f} s: {promise}")
        time.sleep(0.05)


def ask(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def run(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


@pytest.mark.parametrize("version", [16, 18])
def test_both_versions_start_ready_for_logical_decoding(version: int) -> None:
    with PostgresServer.start(version=version) as server:
        assert str(ask(server.dsn(), "SHOW server_version")).startswith(f"{version}.")
        assert ask(server.dsn(unix=True), "SHOW wal_level") == "logical"
        assert ask(server.dsn(), "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'pgoutput')") == "s"


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(EmbeddedServersMissing) as caught:
        PostgresServer.start(version=9)
    assert caught.value.remedy == "Choose one of 16, 18."


def test_settings_reach_the_servers() -> None:
    with PostgresServer.start(settings={"wal_sender_timeout": "3s", "cluster_name": "it's\\ours"}) as postgres:
        assert ask(postgres.dsn(), "SHOW wal_sender_timeout") == "3s"
        assert ask(postgres.dsn(), "SHOW cluster_name") == "it's\\ours"
    with ValkeyServer.start(settings={"maxmemory": "64mb"}) as valkey, redis.Redis.from_url(valkey.url()) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(64 * 1024 * 1024)}


def test_a_server_that_cannot_start_shows_its_log_and_leaves_nothing() -> None:
    before = set(scratch_directory().glob("postgres-*"))
    with pytest.raises(EmbeddedServerFailed, match="no_such_setting"):
        PostgresServer.start(settings={"no_such_setting": "1"})
    assert set(scratch_directory().glob("postgres-*")) == before


def test_postgres_keeps_its_rows_and_port_when_stopped_and_when_killed() -> None:
    with PostgresServer.start() as server:
        dsn = server.dsn()
        run(dsn, "CREATE TABLE kept (id int)")
        run(dsn, "INSERT INTO kept VALUES (1)")
        server.stop()
        server.start_again()
        run(dsn, "INSERT INTO kept VALUES (2)")
        server.kill()
        assert processes_in(server.directory) == []
        server.start_again()
        assert ask(dsn, "SELECT array_agg(id ORDER BY id) FROM kept") == [1, 2]


def test_valkey_keeps_its_append_only_file_when_killed() -> None:
    with ValkeyServer.start(settings={"appendonly": "yes", "appendfsync": "always"}) as server:
        with redis.Redis.from_url(server.url()) as client:
            client.set("kept", "1")
        server.kill()
        server.start_again()
        with redis.Redis.from_url(server.url(), decode_responses=True) as client:
            assert client.get("kept") == "1"


def test_a_stopped_server_says_that_it_is_not_running() -> None:
    with ValkeyServer.start() as server:
        assert server.pid > 0
        server.stop()
        with pytest.raises(EmbeddedServerFailed, match="Valkey is not running"):
            _ = server.pid


def test_a_running_server_is_not_started_again() -> None:
    with ValkeyServer.start() as server, pytest.raises(EmbeddedServerFailed, match="running already"):
        server.start_again()


def test_clusters_share_an_identity_unless_they_ask_for_their_own() -> None:
    query = "SELECT system_identifier FROM pg_control_system()"
    with (
        PostgresServer.start() as one,
        PostgresServer.start() as two,
        PostgresServer.start(own_identity=True) as three,
    ):
        identities = [ask(server.dsn(), query) for server in (one, two, three)]
    assert identities[0] == identities[1] != identities[2]


@pytest.mark.parametrize("killed_before", [False, True])
def test_close_leaves_no_process_and_no_file(killed_before: bool) -> None:
    with PostgresServer.start() as postgres, ValkeyServer.start() as valkey:
        directories = [postgres.directory, valkey.directory]
        with psycopg.connect(postgres.dsn()):  # a client that is still connected holds nothing up
            if killed_before:
                postgres.kill()
                valkey.kill()
            postgres.close()
            valkey.close()
    for directory in directories:
        assert processes_in(directory) == []
        assert not directory.exists()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, None], ids=["killed", "interrupted", "ended"])
def test_nothing_outlives_the_process_that_started_the_servers(end: signal.Signals | None) -> None:
    command = [sys.executable, "-W", "error", "-c", OWNER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        directory, *pids = json.loads(owner.stdout.readline())
        assert {process.pid for process in processes_in(Path(directory))} >= set(pids)
        if end is not None:
            owner.send_signal(end)
        _, complaints = owner.communicate("\n", timeout=DEADLINE_SECONDS)
    if end is None:
        assert complaints == ""
    wait_until(lambda: processes_in(Path(directory)) == [], "no process left")
    wait_until(lambda: not Path(directory).exists(), "nothing left on disk")


def test_each_test_gets_fresh_databases(source_dsn: str, target_dsn: str) -> None:
    assert ask(source_dsn, "SELECT current_database()") != ask(target_dsn, "SELECT current_database()")
    assert ask(source_dsn, "SELECT count(*) FROM pg_stat_user_tables") == 0


def test_a_database_is_dropped_though_its_slot_is_being_read(postgres_server: servers.Postgres) -> None:
    with servers.database(postgres_server, "source") as dsn:
        run(dsn, "CREATE PUBLICATION p")
        run(dsn, "SELECT pg_create_logical_replication_slot('busy', 'pgoutput')")
        walsender = psycopg.pq.PGconn.connect(f"{dsn} replication=database".encode())
        walsender.exec_(b"START_REPLICATION SLOT busy LOGICAL 0/0 (proto_version '1', publication_names 'p')")
    walsender.finish()
    assert ask(postgres_server.dsn(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'busy'") == 0


def test_redis_is_empty_at_first(redis_url: str, pipeline_name: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set(pipeline_name, "1")


def test_redis_is_empty_again_in_the_next_test(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
