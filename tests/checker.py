"""The one judge of all end-to-end tests: is the replica the source, and does the stream tell what happened?"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import psycopg
import redis

from tests.workload import COLUMNS, Record
from transforms.position import Position

Table = tuple[str, Sequence[str], Sequence[str]]


def watch_revs(target_dsn: str, tables: Sequence[str] = tuple(COLUMNS)) -> None:
    """Have the replica's database note every row whose `rev` falls, also across a delete."""
    with psycopg.connect(target_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA IF NOT EXISTS watch;"
            "CREATE TABLE watch.newest (place text PRIMARY KEY, rev bigint);"
            "CREATE TABLE watch.falls (place text, was bigint, became bigint);"
            """
            CREATE FUNCTION watch.note() RETURNS trigger LANGUAGE plpgsql AS $$
            DECLARE name text := TG_TABLE_NAME; was bigint;
            BEGIN
              FOR i IN 0 .. TG_NARGS - 1 LOOP name := name || '/' || (to_jsonb(NEW) ->> TG_ARGV[i]); END LOOP;
              SELECT rev INTO was FROM watch.newest WHERE place = name;
              IF was > NEW.rev THEN INSERT INTO watch.falls VALUES (name, was, NEW.rev); END IF;
              INSERT INTO watch.newest VALUES (name, NEW.rev) ON CONFLICT (place) DO UPDATE SET rev = EXCLUDED.rev;
              RETURN NULL;
            END $$;
            """
        )
        for table in tables:
            arguments = ", ".join(f"'{name}'" for name in COLUMNS[table][2])
            connection.execute(
                f"CREATE TRIGGER watch AFTER INSERT OR UPDATE ON replica.{table}"
                f" FOR EACH ROW EXECUTE FUNCTION watch.note({arguments})".encode()
            )


def assert_replica_equals_source(
    source_dsn: str, target_dsn: str, tables: Mapping[str, Table] = COLUMNS
) -> dict[str, int]:
    """Compare every row, by the text form of each mapped column; returns the number of rows by table."""
    counts = {}
    for table, (_, columns, key) in tables.items():
        source = _rows(source_dsn, f"public.{table}", columns, key)
        replica = _rows(target_dsn, f"replica.{table}", columns, key)
        differing = [name for name in source.keys() | replica.keys() if source.get(name) != replica.get(name)]
        examples = {name: (source.get(name), replica.get(name)) for name in sorted(differing)[:3]}
        assert not differing, f"{table}: {len(differing)} of {len(source)} rows differ, like {str(examples)[:1500]}"
        counts[table] = len(source)
    return counts


def assert_revs_never_fell(target_dsn: str) -> None:
    """See `watch_revs`."""
    with psycopg.connect(target_dsn) as connection:
        falls = connection.execute("SELECT * FROM watch.falls LIMIT 5").fetchall()
        seen = connection.execute("SELECT count(*) FROM watch.newest").fetchone()
    assert falls == []
    assert seen is not None
    assert seen[0] > 0, "the triggers saw nothing"


def assert_streams_match_record(client: redis.Redis, pipeline: str, record: Record) -> int:
    """The entries without `origin` are the committed changes, one to one; ids rise. Returns how many there are."""
    tables = {label: (table, key) for table, (label, _, key) in COLUMNS.items()}
    changes: dict[tuple[str, tuple[str, ...]], list[tuple[str, int]]] = defaultdict(list)
    truncates: dict[str, list[int]] = defaultdict(list)
    for key in client.scan_iter(f"{pipeline}:*", _type="STREAM"):
        last = Position.parse("0-0")
        for entry_id, fields in _entries(client, key):
            position = Position.parse(entry_id.decode())
            assert position > last, f"ids do not rise in {key!r}"
            last = position
            assert not any(b"PLANTED SECRET" in value for value in fields.values())
            if b"origin" in fields or fields.get(b"op") == b"mark" or b"op" not in fields:
                continue
            table, names = tables[fields[b"type"].decode()]
            xid = int(fields[b"tx"])
            if fields[b"op"] == b"truncate":
                truncates[table].append(xid)
            else:
                values = json.loads(fields[b"key"])
                changes[table, tuple(str(values[name]) for name in names)].append((fields[b"op"].decode(), xid))
    assert truncates == record.truncates
    differing = [
        place for place in changes.keys() | record.changes.keys() if changes.get(place) != record.changes.get(place)
    ]
    examples = {place: (record.changes.get(place), changes.get(place)) for place in differing[:3]}
    assert not differing, f"{len(differing)} keys with other changes than were committed, like {examples}"
    return sum(map(len, changes.values()))


def _rows(dsn: str, table: str, columns: Sequence[str], key: Sequence[str]) -> dict[str, tuple[object, ...]]:
    listed = ", ".join(f'"{name}"::text' for name in columns)
    names = " || '/' || ".join(f'"{name}"::text' for name in key)
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        return {row[0]: row[1:] for row in connection.execute(f"SELECT {names}, {listed} FROM {table}".encode())}


def _entries(client: redis.Redis, key: bytes) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: list[tuple[bytes, dict[bytes, bytes]]] = []
    start = b"-"
    while page := client.xrange(key, start, count=10_000):
        found += page  # type: ignore[arg-type]
        start = b"(" + page[-1][0]  # type: ignore[operator]
    return found
