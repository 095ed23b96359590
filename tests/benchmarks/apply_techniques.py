"""Ways to write a batch of JSON states to a table: `python -m tests.benchmarks.apply_techniques`.

Each technique writes the same rows in batches of each size, one transaction a batch, into a table with a primary key:
once as inserts into a growing table, once as updates of random rows. README.md beside this file holds the tables.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import psutil
import psycopg

from cdc.demo.servers import PostgresServer
from sinks.copy_text import line_writer
from sinks.postgres import JsonText, JsonTextDumper
from tests.benchmarks.workloads import COLUMNS, insert

NAMES = [name for name, _ in COLUMNS]
TYPES = {name: type_.removesuffix(" PRIMARY KEY") for name, type_ in COLUMNS}
BASE_TYPES = {name: type_.partition("(")[0] for name, type_ in TYPES.items()}
LIST = ", ".join(NAMES)
SET = ", ".join(f"{name} = k.{name}" for name in NAMES[1:])
ON_CONFLICT = f"ON CONFLICT (id) DO UPDATE SET {SET.replace('k.', 'excluded.')}"
MERGE = (
    f"ON t.id = k.id WHEN MATCHED THEN UPDATE SET {SET}"
    f" WHEN NOT MATCHED THEN INSERT ({LIST}) VALUES ({', '.join(f'k.{name}' for name in NAMES)})"
)
STAGE = "CREATE TEMPORARY TABLE stage ON COMMIT DROP AS SELECT * FROM bench WITH NO DATA"
EXISTS = "SELECT count(*) FROM bench AS t JOIN json_populate_recordset(NULL::bench, %s) AS k ON t.id = k.id"

States = Sequence[bytes]
Connection = psycopg.Connection[Any]
Technique = Callable[[Connection, States], None]


def _array(states: States) -> tuple[JsonText]:
    return (JsonText(b"[%b]" % b",".join(states)),)


def _statement(text: str) -> Technique:
    def apply(connection: Connection, states: States) -> None:
        connection.execute(text.encode(), _array(states))

    return apply


def _copy(connection: Connection, table: str, states: States) -> None:
    write = line_writer(NAMES, BASE_TYPES, NAMES)
    assert write is not None
    lines, others = write(list(states))
    assert not others
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
        copy.write(lines)


def _copied(connection: Connection, states: States) -> None:
    keys = [state[: state.index(b",")] + b"}" for state in states]
    row = connection.execute(EXISTS.encode(), _array(keys)).fetchone()
    assert row == (0,)
    _copy(connection, "bench", states)


def _staged(text: str) -> Technique:
    def apply(connection: Connection, states: States) -> None:
        connection.execute(STAGE.encode())
        _copy(connection, "stage", states)
        connection.execute(text.encode())

    return apply


def _values(states: States) -> list[list[str | None]]:
    """Values as text, the rows' way."""
    rows = []
    for state in states:
        row = orjson.loads(state)
        row["doc"] = orjson.dumps(row["doc"]).decode()
        rows.append([None if value is None else str(value) for value in row.values()])
    return rows


def _unnested(connection: Connection, states: States) -> None:
    arrays = ", ".join(f"%s::text[]::{type_}[]" for type_ in TYPES.values())
    statement = f"INSERT INTO bench ({LIST}) SELECT * FROM unnest({arrays}) {ON_CONFLICT}"
    connection.execute(statement.encode(), [list(column) for column in zip(*_values(states), strict=True)])


def _row_by_row(connection: Connection, states: States) -> None:
    places = ", ".join(f"%s::{type_}" for type_ in TYPES.values())
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO bench ({LIST}) VALUES ({places}) {ON_CONFLICT}".encode(), _values(states))


RECORDS, RECORDS_B = (
    "json_populate_recordset(NULL::bench, %s)",
    "jsonb_populate_recordset(NULL::bench, %s::json::jsonb)",
)
TECHNIQUES: dict[str, Technique] = {
    "json_populate_recordset, ON CONFLICT": _statement(f"INSERT INTO bench SELECT * FROM {RECORDS} {ON_CONFLICT}"),
    "jsonb_populate_recordset, ON CONFLICT": _statement(f"INSERT INTO bench SELECT * FROM {RECORDS_B} {ON_CONFLICT}"),
    "json_populate_recordset, MERGE": _statement(f"MERGE INTO bench AS t USING {RECORDS} AS k {MERGE}"),
    "COPY, keys looked up before": _copied,
    "COPY to a temporary table, ON CONFLICT": _staged(f"INSERT INTO bench SELECT * FROM stage {ON_CONFLICT}"),
    "COPY to a temporary table, MERGE": _staged(f"MERGE INTO bench AS t USING stage AS k {MERGE}"),
    "unnest of ten arrays, ON CONFLICT": _unnested,
    "executemany, ON CONFLICT": _row_by_row,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one technique with one size of batch."""

    rows_per_second: float
    client: float
    """CPU microseconds a row."""
    server: float


def measure(connection: Connection, technique: Technique, batches: Sequence[States]) -> Cost:
    """Write all batches."""
    rows = sum(map(len, batches))
    server, client = psutil.Process(connection.info.backend_pid), psutil.Process()
    began, before = time.perf_counter(), (_cpu(client), _cpu(server))
    for batch in batches:
        with connection.transaction():
            technique(connection, batch)
    used = (_cpu(client) - before[0], _cpu(server) - before[1])
    return Cost(rows / (time.perf_counter() - began), used[0] / rows * 1e6, used[1] / rows * 1e6)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def states_of(connection: Connection, rows: int) -> list[bytes]:
    """States as the reader writes them."""
    connection.execute("CREATE TABLE bench (" + ", ".join(map(" ".join, COLUMNS)) + ")")
    connection.execute(insert(1, rows).encode())
    fields = ", ".join(f"'{name}', {_as_json(name, type_)}" for name, type_ in BASE_TYPES.items())
    found = connection.execute(f"SELECT json_build_object({fields})::text FROM bench ORDER BY id".encode()).fetchall()
    return [orjson.dumps(orjson.loads(text)) for (text,) in found]


def _as_json(name: str, type_: str) -> str:
    return name if type_ in ("bigint", "integer", "boolean", "double precision", "jsonb") else f"{name}::text"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.apply_techniques")
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 1_000, 5_000, 20_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = {"max_wal_size": "8GB", "shared_buffers": "256MB", "fsync": "on"}
    with (
        PostgresServer.start(settings=settings) as server,
        psycopg.connect(server.dsn(), autocommit=True) as connection,
    ):
        connection.adapters.register_dumper(JsonText, JsonTextDumper)
        states = states_of(connection, options.rows)
        shuffled = random.Random(1).sample(states, len(states))
        for kind, order in (("inserts", states), ("updates of random rows", shuffled)):
            print(f"\n{kind}: rows/s (client + server CPU, microseconds a row)\n")
            print("| technique | " + " | ".join(f"{size:,}" for size in options.sizes) + " |")
            print("| --- |" + " ---: |" * len(options.sizes))
            for name, technique in TECHNIQUES.items():
                if kind != "inserts" and technique is _copied:
                    continue
                cells = [_cell(connection, technique, order, size, kind, options.rounds) for size in options.sizes]
                print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _cell(connection: Connection, technique: Technique, states: States, size: int, kind: str, rounds: int) -> str:
    share = states if size >= 1000 else states[: max(size * 20, len(states) // 10)]
    costs = []
    for _ in range(rounds):
        connection.execute("TRUNCATE bench")
        if kind != "inserts":
            connection.execute(insert(1, len(states)).encode())
        connection.execute("VACUUM ANALYZE bench")
        connection.execute("CHECKPOINT")
        costs.append(measure(connection, technique, [share[at : at + size] for at in range(0, len(share), size)]))
    middle = sorted(costs, key=lambda cost: cost.rows_per_second)[len(costs) // 2]
    return f"{middle.rows_per_second:,.0f} ({middle.client:.1f} + {middle.server:.1f})"


if __name__ == "__main__":
    main()
