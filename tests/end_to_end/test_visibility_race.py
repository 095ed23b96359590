"""Commits that are in the log but not visible yet, held so by a synchronous standby that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cdc.demo.servers import PostgresServer
from tests.processes import Command, Pipeline, closing, wait_until

EVENTS = """
[events.row]
table = "rows"
columns = ["id", "rev"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
row = "replica.rows"
"""

WEAKENED = """
import sys
from cdc.snapshot import visibility

class Weak(visibility.Window):
    '''Drop what changed between the marks, whatever the chunk's snapshot saw.'''

    def __init__(self, before, possibly_before):
        super().__init__(frozenset(), frozenset())

visibility.Window = Weak
from cdc.cli import main
sys.exit(main(sys.argv[1:]))
"""

ROWS = 200


@pytest.fixture
def race(
    target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path, embedded_only: None
) -> Iterator[Pipeline]:
    """A pipeline on a source of its own, whose commits can be held invisible."""
    with PostgresServer.start() as server:
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("CREATE TABLE rows (id int PRIMARY KEY, rev bigint NOT NULL)")
            connection.execute("INSERT INTO rows SELECT i, 0 FROM generate_series(1, %s) i", (ROWS,))
        made = Pipeline(pipeline_name, server.dsn(), redis_url, tmp_path, EVENTS, {"TARGET_DSN": target_dsn})
        with closing(made):
            yield made
            hold_commits(made, held=False)


def hold_commits(race: Pipeline, *, held: bool) -> None:
    with psycopg.connect(race.source_dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'nobody' if held else ''}'".encode())
        connection.execute("SELECT pg_reload_conf()")
    wait_until(
        "the setting", lambda: setting(race.source_dsn, "synchronous_standby_names") == ("nobody" if held else "")
    )


def setting(dsn: str, name: str) -> str:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def commit_invisibly(race: Pipeline, rev: int) -> list[threading.Thread]:
    """Several transactions that set `rev` of a part of the rows each; their commits hang, already in the log."""

    def write(part: int) -> None:
        with psycopg.connect(race.source_dsn) as connection:
            connection.execute("UPDATE rows SET rev = %s WHERE id %% 4 = %s", (rev, part))
            connection.commit()

    threads = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()

    def hanging() -> bool:
        with psycopg.connect(race.source_dsn) as connection:
            row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchone()
        return row == (4,)

    wait_until("four commits to hang", hanging)
    return threads


def stream_has(race: Pipeline, rev: int) -> bool:
    entries = race.redis.xrange(race.keys.stream("row", 1))
    states = [fields.get(b"state", b"") for _, fields in entries]  # type: ignore[union-attr]
    return sum(b'"rev":%d}' % rev in state for state in states) >= ROWS


def revs(dsn: str, table: str) -> set[int]:
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute(f"SELECT DISTINCT rev FROM {table}".encode())}


def run_race(race: Pipeline, reader: Command) -> set[int]:
    """Snapshot the table while its newest state is in the log but invisible; returns the revs the replica ends with."""
    target = race.environment["TARGET_DSN"]
    reader.start()
    race.sink("copy")
    race.wait_published()
    hold_commits(race, held=True)
    writers = commit_invisibly(race, rev=1)
    wait_until("the invisible commits to be published", lambda: stream_has(race, 1))
    assert revs(race.source_dsn, "rows") == {0}, "the commits are visible: there is no race to run"
    race.run("cdc.cli", "snapshot", "row")
    wait_until("the run to be taken", lambda: len(race.redis.hgetall(race.keys.runs)) >= 1 and requests_taken(race))
    wait_until("the chunk to be read, or to wait", lambda: chunk_was_read(race, reader))
    hold_commits(race, held=False)
    for writer in writers:
        writer.join()
    race.wait_published()
    race.wait_applied(target, "copy")
    assert revs(race.source_dsn, "rows") == {1}
    return revs(target, "replica.rows")


def requests_taken(race: Pipeline) -> bool:
    return race.redis.xlen(race.keys.requests) == 0


def chunk_was_read(race: Pipeline, reader: Command) -> bool:
    """The weak reader has finished the snapshot, the right one says what it waits for."""
    return race.snapshots_done() or "snapshot waits for transactions" in reader.output


@pytest.mark.timeout(120)
def test_a_chunk_does_not_overwrite_what_its_snapshot_could_not_see(race: Pipeline) -> None:
    assert run_race(race, race.command("cdc.cli", "run", log="reader")) == {1}


@pytest.mark.timeout(120)
def test_the_weaker_rule_is_found_out(race: Pipeline) -> None:
    program = race.directory / "weak_reader.py"
    program.write_text(WEAKENED)
    weak = race.command("cdc.cli", "run", log="reader")
    weak.arguments[1:3] = [str(program)]
    weak.forked = False
    assert run_race(race, weak) == {0}
