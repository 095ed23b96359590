"""The one judge of all end-to-end tests: is the replica the source, and does the stream tell what happened?

`assert_nothing_wrong` is what a test asks after every fault, and `confirmed_stays_behind_published` goes on meanwhile.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict

from tests.processes import Pipeline
from tests.workload import COLUMNS, SECRETS, VALUES, Record
from transforms.position import LSN, Position

Table = tuple[str, Sequence[str], Sequence[str]]
SAMPLE_SECONDS = 0.05


def assert_nothing_wrong(shop: Pipeline, record: Record, seconds: float = 120.0, least: int = 100) -> int:
    """Wait until sink `copy` has applied everything, then judge; returns the number of changes, `least` at least."""
    target = shop.environment["TARGET_DSN"]
    shop.wait_published(seconds)
    shop.wait_applied(target, "copy", seconds)
    assert_replica_equals_source(shop.source_dsn, target)
    assert_revs_never_fell(target)
    changes = assert_streams_match_record(shop.redis, shop.name, record)
    assert changes >= least
    assert_no_secret_is_told(shop)
    return changes


@contextmanager
def confirmed_stays_behind_published(shop: Pipeline, *, patient: bool = False) -> Iterator[list[LSN]]:
    """Sample the slot and then Redis all the time, once there is a position: what is confirmed was published before.

    Yields what the slot had confirmed at each sample. `patient`: a server that is away is asked again.
    """
    stop = threading.Event()
    samples: list[LSN] = []
    wrong: list[tuple[LSN, LSN]] = []
    failures: list[Exception] = []

    def sample(connection: psycopg.Connection) -> None:
        row = connection.execute(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (f"cdc_{shop.name}",)
        ).fetchone()
        if row is None or row[0] is None:
            return
        confirmed, published = LSN.parse(row[0]), shop.published
        if confirmed > published:
            wrong.append((confirmed, published))
        samples.append(confirmed)

    def run() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
                    while not stop.wait(SAMPLE_SECONDS):
                        sample(connection)
            except (psycopg.OperationalError, redis.ConnectionError, redis.BusyLoadingError) as error:
                if not patient:
                    failures.append(error)
                    return
                stop.wait(SAMPLE_SECONDS)
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert wrong == [], f"the slot was ahead in {len(wrong)} of {len(samples)} samples"
    assert len(set(samples)) > 1, f"the slot did not move in {len(samples)} samples"


def assert_no_secret_is_told(shop: Pipeline) -> None:
    """No unmapped value is in anything but the source; no mapped value is in a log, a status, or a metric."""
    password = conninfo_to_dict(shop.source_dsn).get("password")
    secrets = [*SECRETS, *([str(password)] if password else [])]
    status = shop.command("cdc.cli", "status", "--json", log="status")
    status.start()
    assert status.wait() == 0, status.output
    told = {log.name: log.read_text(errors="replace") for log in sorted(shop.directory.glob("*.log"))}
    assert len(told) > 2, f"there are no logs but {list(told)}"
    for key in shop.redis.scan_iter(f"{shop.name}:*"):
        if shop.redis.type(key) == b"stream":
            for entry in _entries(shop.redis, key):
                _assert_absent(secrets, str(entry), f"key {key!r}")
        else:
            _assert_absent([*secrets, *VALUES], str(_content(shop.redis, key)), f"key {key!r}")
    for name, text in told.items():
        _assert_absent([*secrets, *VALUES], text, name)
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        for dead, message in connection.execute(
            "SELECT d::text || encode(key, 'escape') || coalesce(encode(state, 'escape'), ''), message"
            " FROM cdc.dead_event d"
        ):
            _assert_absent(secrets, dead, "cdc.dead_event")
            _assert_absent(VALUES, message, "the message of a dead event")


def _assert_absent(words: Sequence[str], text: str, place: str) -> None:
    found = [word for word in words if word in text]
    assert found == [], f"{place} holds {found}"


def _content(client: redis.Redis, key: bytes) -> object:
    kind = client.type(key)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"string":
        return client.get(key)
    if kind == b"zset":
        return client.zrange(key, 0, -1)
    raise AssertionError(f"key {key!r} is a {kind!r}, which nobody looks into")


def watch_revs(target_dsn: str, tables: Mapping[str, Table] = COLUMNS) -> None:
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
        for table, (_, _, key) in tables.items():
            arguments = ", ".join(f"'{name}'" for name in key)
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
    """The entries without `origin` are the committed changes, one to one; ids rise. Returns how many there are.

    But for those of `record.merged` behind which their row was read again, or changed again.
    """
    tables = {label: (table, key) for table, (label, _, key) in COLUMNS.items()}
    changes: dict[tuple[str, tuple[str, ...]], list[tuple[str, int]]] = defaultdict(list)
    read_again: dict[tuple[str, tuple[str, ...]], int] = {}  # how many changes had come before the last time
    truncates: dict[str, list[int]] = defaultdict(list)
    for key in client.scan_iter(f"{pipeline}:*", _type="STREAM"):
        last = Position.parse("0-0")
        for entry_id, fields in _entries(client, key):
            position = Position.parse(entry_id.decode())
            assert position > last, f"ids do not rise in {key!r}"
            last = position
            assert not any(b"PLANTED SECRET" in value for value in fields.values())
            if fields.get(b"op") == b"mark" or b"op" not in fields:
                continue
            table, names = tables[fields[b"type"].decode()]
            if fields[b"op"] == b"truncate":
                truncates[table].append(int(fields[b"tx"]))
                continue
            values = json.loads(fields[b"key"])
            place = table, tuple(str(values[name]) for name in names)
            if b"origin" in fields:
                read_again[place] = len(changes[place])
            else:
                changes[place].append((fields[b"op"].decode(), int(fields[b"tx"])))
    assert truncates == record.truncates
    differing = [
        place
        for place in changes.keys() | record.changes.keys()
        if not _tells(changes.get(place, []), place, record, read_again.get(place, -1))
    ]
    examples = {place: (record.changes.get(place), changes.get(place)) for place in differing[:3]}
    assert not differing, f"{len(differing)} keys with other changes than were committed, like {examples}"
    return sum(map(len, changes.values()))


def _tells(found: Sequence[tuple[str, int]], place: tuple[str, tuple[str, ...]], record: Record, read: int) -> bool:
    """Whether the changes of a key are those that were committed; `read`: it was read again behind so many of them."""
    table, key = place
    at = 0
    for op, xid in record.changes.get(place, []):
        if at < len(found) and found[at] == (op, xid):
            at += 1
        elif (table, key, xid) not in record.merged or max(read, len(found) - 1) < at:
            return False
    return at == len(found)


def _rows(dsn: str, table: str, columns: Sequence[str], key: Sequence[str]) -> dict[str, tuple[object, ...]]:
    listed = ", ".join(f'"{name}"::text' for name in columns)
    names = " || '/' || ".join(f'"{name}"::text' for name in key)
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        return {row[0]: row[1:] for row in connection.execute(f"SELECT {names}, {listed} FROM {table}".encode())}


def _entries(client: redis.Redis, key: bytes) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    start = b"-"
    while page := client.xrange(key, start, count=10_000):
        yield from page  # type: ignore[misc]
        start = b"(" + page[-1][0]  # type: ignore[operator]
