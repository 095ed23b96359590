"""Rows with large values that most updates leave alone, and who reads every entry of them."""

from __future__ import annotations

import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import psycopg
import redis
from psycopg.types.json import Jsonb

from tests.processes import Pipeline, wait_until

BODY_BYTES = 100_000
FIELDS = ["id", "rev", "name", "body", "doc", "tags"]
LARGE = ("body", "doc", "tags")
TABLES = {
    "whole_pages": ("whole_page.v1", FIELDS, ["id"]),
    "part_pages": ("part_page.v1", FIELDS, ["id"]),
}
CONFIGURATION = f"""
[events.whole_page]
table = "whole_pages"
columns = {json.dumps(FIELDS)}
[events.part_page]
table = "part_pages"
columns = {json.dumps(FIELDS)}
unchanged_toast = "partial"
[sinks.copy]
type = "postgres"
dsn = "${{TARGET_DSN}}"
[sinks.copy.tables]
whole_page = "replica.whole_pages"
part_page = "replica.part_pages"
"""
_NOISE = random.Random(1).randbytes(BODY_BYTES // 2).hex()


def body_of(rev: int) -> str:
    """A text of 100 kB that tells when it was written."""
    return f"{rev:012}{_NOISE[12:]}"


def doc_of(rev: int) -> Jsonb:
    return Jsonb({"rev": rev, "pad": _NOISE[: 5_000 + rev % 100]})


def tags_of(rev: int) -> list[str]:
    return [str(rev), *(_NOISE[at : at + 50] for at in range(0, 5_000, 50))]


WRITTEN = {"body": body_of, "doc": doc_of, "tags": tags_of}


def seed(dsn: str, rows: int) -> None:
    """Make the tables with so many rows each; no column is ever NULL."""
    with psycopg.connect(dsn) as connection:
        for table in TABLES:
            connection.execute(
                f"CREATE TABLE {table} (id bigint PRIMARY KEY, rev bigint NOT NULL, name text NOT NULL,"
                " body text NOT NULL, doc jsonb NOT NULL, tags text[] NOT NULL)".encode()
            )
            for column in LARGE:
                connection.execute(f"ALTER TABLE {table} ALTER {column} SET STORAGE EXTERNAL".encode())
            for number in range(rows):
                connection.execute(*inserting(table, number, 0))


def inserting(table: str, number: int, rev: int) -> tuple[bytes, Sequence[object]]:
    statement = f"INSERT INTO {table} VALUES (%s, %s, 'new', %s, %s, %s) ON CONFLICT DO NOTHING"
    return statement.encode(), [number, rev, body_of(rev), doc_of(rev), tags_of(rev)]


@dataclass
class Load:
    """Four connections that change random rows until so many updates are made.

    Each has the rows of one residue class, so that the order in which `rev` grows is that of a row's changes.
    """

    dsn: str
    rows: int
    """Of each table there are at most twice as many."""
    updates: int
    local: float = 1.0
    """The share of transactions that do not wait for a synchronous standby."""
    made: int = 0
    failures: list[BaseException] = field(default_factory=list)
    _revs: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._guarded, args=(number,)) for number in range(4)]
        for thread in self._threads:
            thread.start()

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        assert self.failures == []
        assert self.made >= self.updates

    def _guarded(self, number: int) -> None:
        try:
            with psycopg.connect(self.dsn) as connection:
                chance = random.Random(f"large/{number}")
                while self.made < self.updates:
                    self._transaction(connection, chance, number)
        except BaseException as error:
            self.failures.append(error)

    def _transaction(self, connection: psycopg.Connection, chance: random.Random, number: int) -> None:
        if chance.random() < self.local:
            connection.execute("SET LOCAL synchronous_commit = local")
        made, table = 0, chance.choice(list(TABLES))
        row = self._row(chance, number)
        try:
            for _ in range(chance.choice((1, 1, 1, 1, 1, 1, 2, 3))):
                made += self._change(connection, chance, table, row, self._row(chance, number))
            connection.commit()
        except psycopg.errors.UniqueViolation:  # a key change met a row
            connection.rollback()
            return
        self.made += made

    def _row(self, chance: random.Random, number: int) -> int:
        return chance.randrange(self.rows // 2) * 4 + number

    def _change(self, connection: psycopg.Connection, chance: random.Random, table: str, row: int, other: int) -> int:
        """Change a row, most often by an update; returns how many updates there were."""
        rev, what = next(self._revs), chance.random()
        if what < 0.05:
            connection.execute(f"DELETE FROM {table} WHERE id = %s".encode(), [row])
            return 0
        if what < 0.15:
            connection.execute(*inserting(table, row, rev))
            return 0
        changed = [name for name in LARGE if chance.random() < chance.choice((0, 0, 0.5, 0.5, 1))]
        moved = {"id": other} if what < 0.2 else {}
        values = {"rev": rev, "name": f"name {rev}", **moved} | {name: WRITTEN[name](rev) for name in changed}
        assignments = ", ".join(f"{name} = %s" for name in values)
        statement = f"UPDATE {table} SET {assignments} WHERE id = %s"
        return connection.execute(statement.encode(), [*values.values(), row]).rowcount


class Reading:
    """Somebody who reads the streams beside the sink, each entry once, and looks into it."""

    GROUP = "audit"

    def __init__(self, shop: Pipeline) -> None:
        self._shop = shop
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._newest: dict[tuple[bytes, bytes], int] = {}
        self.last: dict[str, str] = {}
        """By stream, the entry that was read last."""
        self.seen: Counter[str] = Counter()
        """How many entries of each kind there were."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read while the block runs; raises what is wrong with an entry."""
        keys = {self._shop.keys.stream(label.partition(".")[0], 1): ">" for label, _, _ in TABLES.values()}
        for key in keys:
            self._shop.redis.xgroup_create(key, self.GROUP, "0", mkstream=True)
        thread = threading.Thread(target=self._read, args=(keys,))
        thread.start()
        try:
            yield
            wait_until("every entry to be looked into", lambda: self._failures or self._is_at_the_end(keys))
        finally:
            self._stop.set()
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _is_at_the_end(self, keys: dict[str, str]) -> bool:
        ends = {key: cast(Any, self._shop.redis.xinfo_stream(key))["last-generated-id"].decode() for key in keys}
        return all(self.last.get(key) == end for key, end in ends.items())

    def _read(self, keys: dict[str, str]) -> None:
        try:
            with redis.Redis.from_url(self._shop.redis_url) as client:
                while not self._stop.is_set():
                    found = client.xreadgroup(self.GROUP, "one", cast(Any, keys), count=100, block=50, noack=True)
                    for key, entries in cast(Any, found) or ():
                        for entry_id, fields in entries:
                            self._look_into(entry_id, fields)
                            self.last[key.decode()] = entry_id.decode()
        except BaseException as error:
            self._failures.append(error)

    def _look_into(self, entry_id: bytes, fields: dict[bytes, bytes]) -> None:
        op, type_ = fields[b"op"], fields.get(b"type", b"")
        if op != b"upsert":
            self.seen[op.decode()] += 1
            return
        state, partial = json.loads(fields[b"state"]), json.loads(fields.get(b"partial", b"[]"))
        origin = fields.get(b"origin", b"live").decode()
        self.seen["partial" if partial else origin] += 1
        assert [name for name in FIELDS if name not in partial] == list(state), f"{entry_id!r} has {list(state)}"
        assert set(partial) <= set(LARGE)
        assert not partial or (type_ == b"part_page.v1" and origin == "live"), f"{entry_id!r} of {type_!r} is partial"
        assert json.loads(fields[b"key"]) == {"id": state["id"]}
        rev = state["rev"]
        assert isinstance(rev, int)
        assert isinstance(state["name"], str)
        written = {
            "body": int(state["body"][:12]) if "body" in state else 0,
            "doc": state["doc"]["rev"] if "doc" in state else 0,
            "tags": int(state["tags"][0]) if "tags" in state else 0,
        }
        assert max(written.values()) <= rev
        for name in LARGE:
            assert name in partial or state[name] == _as_published(name, written[name]), f"{name} of {entry_id!r}"
        place = type_, fields[b"key"]
        assert self._newest.get(place, -1) <= rev, f"{entry_id!r} is older than an entry before it"
        self._newest[place] = rev


def _as_published(name: str, rev: int) -> object:
    value = WRITTEN[name](rev)
    return value.obj if isinstance(value, Jsonb) else value
