"""Eight tables with keys of many kinds, snapshotted while they are written to and the reader is killed.

The replicas end equal, nothing that was finished is read again, and live changes hardly wait meanwhile.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import psycopg
import pytest
from psycopg import sql

from cdc.snapshot.run import Run
from tests import checker
from tests.processes import Command, Pipeline, closing, wait_until
from transforms.position import Position

KEYS = {  # table -> column, its definition, and row n's value
    "bigints": [("id", "bigint", "n")],
    "pairs": [("tenant", "int", "n % 97"), ("code", "text", "'code ' || n")],
    "texts": [("name", "text", "md5(n::text)")],
    "uuids": [("id", "uuid", "md5(n::text)::uuid")],
    "numerics": [("amount", "numeric", "(n - 5) / 7.0")],
    "days": [("day", "date", "'2000-01-01'::date + n % 9000"), ("no", "int", "n / 9000")],
    "names": [("name", 'varchar(40) COLLATE "C"', "'Ä' || n % 10 || chr(65 + n % 26) || n")],
    "parts": [("id", "bigint", "n"), ("region", "int", "n % 2")],
}
COLUMNS = {
    table: (f"{table}.v1", [*(column for column, _, _ in key), "rev", "label"], [column for column, _, _ in key])
    for table, key in KEYS.items()
}


def configuration() -> str:
    events = [
        f'[events.{table}]\ntable = "{table}"\ncolumns = {json.dumps(columns)}\n'
        for table, (_, columns, _) in COLUMNS.items()
    ]
    beats = (
        '[events.beats]\ntable = "beats"\ncolumns = ["id"]\n[sinks.copy]\ntype = "postgres"\ndsn = "${TARGET_DSN}"\n'
    )
    replicas = [f'{table} = "replica.{table}"\n' for table in (*COLUMNS, "beats")]
    return "".join([*events, beats, "[sinks.copy.tables]\n", *replicas])


def seed(dsn: str, rows: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE beats (id bigint PRIMARY KEY)")
        for table, key in KEYS.items():
            columns = ", ".join(f"{column} {kind}" for column, kind, _ in key)
            names = ", ".join(column for column, _, _ in key)
            partition = " PARTITION BY LIST (region)" if table == "parts" else ""
            connection.execute(
                f"CREATE TABLE {table} ({columns}, rev bigint NOT NULL DEFAULT 0, label text,"
                f" PRIMARY KEY ({names})){partition}".encode()
            )
            if partition:
                connection.execute("CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0)")
                connection.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1)")
            values = ", ".join(value for _, _, value in key)
            connection.execute(
                f"INSERT INTO {table} SELECT {values}, 0, 'row ' || n FROM generate_series(1, {rows}) AS n".encode()
            )
            connection.execute(f"ANALYZE {table}".encode())


@contextmanager
def written_to(dsn: str, rows: int, changes_a_second: int, seed: int) -> Iterator[list[int]]:
    """Change random rows of all tables: mostly updates, some deletes and inserts. Gives how many, in a list of one."""
    stop, done, failures = threading.Event(), [0], []

    def statement(table: str, number: int, chance: float) -> str:
        key = KEYS[table]
        values = [f"(SELECT {value} FROM (SELECT {number} AS n) AS row)" for _, _, value in key]
        where = " AND ".join(f"{column} = {value}" for (column, _, _), value in zip(key, values, strict=True))
        if chance < 0.8:
            return f"UPDATE {table} SET rev = rev + 1, label = label || '.' WHERE {where}"
        if chance < 0.9:
            return f"DELETE FROM {table} WHERE {where}"
        return f"INSERT INTO {table} SELECT {', '.join(values)}, 1, 'new' ON CONFLICT DO NOTHING"

    def write() -> None:
        chance, begun = random.Random(seed), time.monotonic()
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                table, number = chance.choice(list(KEYS)), chance.randint(1, rows + rows // 20)
                connection.execute(statement(table, number, chance.random()).encode(), prepare=False)
                done[0] += 1
                stop.wait(max(0.0, begun + done[0] / changes_a_second - time.monotonic()))

    def guarded() -> None:
        try:
            write()
        except psycopg.Error as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    assert failures == []


@contextmanager
def lag_measured(shop: Pipeline) -> Iterator[dict[float, float]]:
    """Monotonic time of a commit -> seconds until its row was in the replica, for twenty commits a second."""
    stop, lags = threading.Event(), {}
    committed: dict[int, float] = {}

    def beat() -> None:
        with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
            for number in itertools.count(1):
                if stop.wait(0.05):
                    return
                connection.execute("INSERT INTO beats VALUES (%s)", (number,))
                committed[number] = time.monotonic()

    def watch() -> None:
        newest = 0
        with psycopg.connect(shop.environment["TARGET_DSN"], autocommit=True) as connection:
            while not stop.wait(0.02):
                row = connection.execute("SELECT coalesce(max(id), 0) FROM replica.beats").fetchone()
                assert row is not None
                now = time.monotonic()
                for number in range(newest + 1, row[0] + 1):
                    if at := committed.pop(number, None):
                        lags[at] = now - at
                newest = row[0]

    threads = [threading.Thread(target=beat), threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    try:
        yield lags
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@dataclass
class Kill:
    """What was finished when the reader was killed."""

    after: dict[str, tuple[str, ...]]
    """Table -> the key behind which its run would go on."""
    ends: dict[str, Position] = field(default_factory=dict)


def killed(shop: Pipeline, reader: Command) -> Kill:
    reader.kill()
    runs = [Run.parse(text) for text in shop.redis.hgetall(shop.keys.runs).values()]
    after = {
        run.event.removesuffix(".v1"): run.after for run in runs if run.after is not None and run.event != "beats.v1"
    }
    return Kill(after, shop.last_ids())


def read_again(shop: Pipeline, kill: Kill) -> dict[str, int]:
    """How many rows of chunks that were finished at a kill were published by the snapshot afterwards."""
    found = {}
    with psycopg.connect(shop.source_dsn) as connection:
        for table, after in kill.after.items():
            names = [column for column, _, _ in KEYS[table]]
            start, keys = f"({kill.ends[table]}", list[str]()
            stream = shop.keys.stream(table, 1)
            while page := cast(list[tuple[bytes, dict[bytes, bytes]]], shop.redis.xrange(stream, start, count=10_000)):
                keys += [fields[b"key"].decode() for _, fields in page if fields.get(b"origin") == b"snapshot"]
                start = f"({page[-1][0].decode()}"
            query = sql.SQL(
                "SELECT count(*) FROM json_populate_recordset(null::{}, %s::json) AS published WHERE ({}) <= ({})"
            ).format(
                sql.Identifier(table),
                sql.SQL(", ").join(sql.SQL("published.{}").format(sql.Identifier(name)) for name in names),
                sql.SQL(", ").join(map(sql.Literal, after)),
            )
            row = connection.execute(query, (f"[{','.join(keys)}]",)).fetchone()
            assert row is not None
            found[table] = row[0]
    return found


@pytest.mark.parametrize(
    ("rows", "kills"),
    [
        pytest.param(5_000, 3, id="short", marks=pytest.mark.timeout(300)),
        pytest.param(625_000, 10, id="long", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_a_large_snapshot_survives_kills_under_load(
    source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path, rows: int, kills: int
) -> None:
    seed(source_dsn, rows)
    environment = {"TARGET_DSN": target_dsn}
    kills_at: list[float] = []
    finished: list[Kill] = []
    peak = 0
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, configuration(), environment)) as shop:
        with written_to(source_dsn, rows, 500, seed=21) as changes:
            reader, sink = shop.reader(), shop.sink("copy")
            began = time.monotonic()
            wait_until("the replica of the beats", lambda: has_table(target_dsn, "replica.beats"))
            with lag_measured(shop) as lags:
                for number in range(1, kills + 1):
                    while rows_published(shop) < len(KEYS) * rows * number // (kills + 1):
                        peak = max(peak, reader.resident_bytes)
                        time.sleep(0.01)
                    kills_at.append(time.monotonic())
                    finished.append(killed(shop, reader))
                    reader.start()
                wait_until("the snapshots", shop.snapshots_done, 1800)
                seconds = time.monotonic() - began
                shop.wait_applied(target_dsn, "copy", 1800)
        shop.wait_published()
        shop.wait_applied(target_dsn, "copy", 300)
        assert sink.running
        counts = checker.assert_replica_equals_source(source_dsn, target_dsn, COLUMNS)
        assert any(kill.after for kill in finished)
        assert [read_again(shop, kill) for kill in finished] == [dict.fromkeys(kill.after, 0) for kill in finished]
    steady = [lag for at, lag in lags.items() if not any(kill - 1 < at < kill + 5 for kill in kills_at)]
    print(
        f"{sum(counts.values())} rows, {changes[0]} changes, {kills} kills in {seconds:.0f} s; reader {peak >> 20} MB"
    )
    for what, some in (("lag", list(lags.values())), ("lag apart from kills", steady)):
        if some:
            print(f"{what}: p50 {percentile(some, 50):.3f} s, p99 {percentile(some, 99):.3f} s, max {max(some):.3f} s")


def percentile(values: list[float], percent: int) -> float:
    return sorted(values)[len(values) * percent // 100]


def has_table(dsn: str, name: str) -> bool:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,)


def rows_published(shop: Pipeline) -> int:
    return sum(run.rows for run in stored_runs(shop))


def stored_runs(shop: Pipeline) -> list[Run]:
    stored = cast(dict[bytes, bytes], shop.redis.hgetall(shop.keys.runs))
    return [Run.parse(text) for text in stored.values()]
