"""A seeded writer with several connections that knows which of its changes were committed.

Each connection owns the keys of one residue class, so the order of a key's changes is the order in which its owner
made them. `rev` rises with every change of a row, also when a key is deleted and inserted again.

What becomes of a transaction whose COMMIT was not answered, a writer asks Postgres, so that the record stays exact
while servers and links fail (`patient`).
"""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

SCHEMA = """
CREATE TABLE accounts (id bigint PRIMARY KEY, rev bigint NOT NULL, name text, balance numeric(12, 2), doc jsonb,
                       body text, secret text DEFAULT 'PLANTED SECRET', at timestamptz DEFAULT now());
ALTER TABLE accounts ALTER body SET STORAGE EXTERNAL;
CREATE TABLE items (tenant int, code text, rev bigint NOT NULL, quantity int, note text, PRIMARY KEY (tenant, code));
CREATE TABLE tags (name text PRIMARY KEY, rev bigint NOT NULL, weight double precision);
CREATE TABLE devices (id uuid PRIMARY KEY, rev bigint NOT NULL, label text, flags boolean[], raw bytea);
CREATE TABLE parts (id bigint, rev bigint NOT NULL, name text, region int NOT NULL, PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE parts_0 PARTITION OF parts FOR VALUES IN (0);
CREATE TABLE parts_1 (region int NOT NULL, name text, rev bigint NOT NULL, id bigint NOT NULL);
ALTER TABLE parts ATTACH PARTITION parts_1 FOR VALUES IN (1);
CREATE TABLE commits (name text PRIMARY KEY);  -- of a patient workload's transactions; not mapped
"""

EVENTS = """
[events.account]
table = "accounts"
columns = ["id", "rev", "name", "balance", "doc", "body", "at"]
[events.item]
table = "items"
columns = ["tenant", "code", "rev", "quantity", "note"]
[events.tag]
table = "tags"
columns = ["name", "rev", "weight"]
stream = "small"
[events.device]
table = "devices"
columns = ["id", "rev", "label", "flags", "raw"]
stream = "small"
[events.part]
table = "parts"
columns = ["id", "region", "rev", "name"]
"""

SINK = """
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
account = "replica.accounts"
item = "replica.items"
tag = "replica.tags"
device = "replica.devices"
part = "replica.parts"
"""

COLUMNS = {  # table -> (event label, columns, key)
    "accounts": ("account.v1", ["id", "rev", "name", "balance", "doc", "body", "at"], ["id"]),
    "items": ("item.v1", ["tenant", "code", "rev", "quantity", "note"], ["tenant", "code"]),
    "tags": ("tag.v1", ["name", "rev", "weight"], ["name"]),
    "devices": ("device.v1", ["id", "rev", "label", "flags", "raw"], ["id"]),
    "parts": ("part.v1", ["id", "region", "rev", "name"], ["id", "region"]),
}

SECRETS = ("PLANTED SECRET",)
"""Values of a column that is not mapped: they belong nowhere but into the source."""
VALUES = ("PLANTED VALUE",)
"""Part of mapped values: they belong into rows, and into no log, status or metric."""
_AWAY_SECONDS = 60.0
_MARK_COMMITTED = "INSERT INTO commits VALUES (%s) ON CONFLICT DO NOTHING"

Key = tuple[str, ...]


@dataclass
class Record:
    """What was committed, as the streams must have it."""

    changes: dict[tuple[str, Key], list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    """(table, key) -> its changes in order: op and 32-bit xid."""
    truncates: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    merged: set[tuple[str, Key, int]] = field(default_factory=set)
    """Those among them that the log did not bring whole, table, key and xid: while the row waits to be read again for
    another reason, such a change has no entry of its own; that reading, or a later change, brings it."""
    transactions: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def device_id(number: int) -> str:
    """The uuid of device `number`."""
    return str(uuid.UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)))


def seed(dsn: str, rows: int) -> None:
    """Make the tables with about `rows` rows in all."""
    each = rows // 5
    with psycopg.connect(dsn) as connection:
        connection.execute(SCHEMA.encode())
        connection.execute(
            "INSERT INTO accounts SELECT i, 0, 'name ' || i, i / 7.0, jsonb_build_object('n', i),"
            " CASE WHEN i %% 100 = 0 THEN repeat(md5(i::text), 120) END FROM generate_series(1, %s) i",
            (each,),
        )
        connection.execute(
            "INSERT INTO items SELECT i %% 40, 'c' || i, 0, i, NULL FROM generate_series(1, %s) i", (each,)
        )
        connection.execute("INSERT INTO tags SELECT 't' || i, 0, i / 3.0 FROM generate_series(1, %s) i", (each,))
        connection.execute("INSERT INTO parts SELECT i, 0, 'part ' || i, i %% 2 FROM generate_series(1, %s) i", (each,))
        with connection.cursor().copy("COPY devices (id, rev, label, flags, raw) FROM STDIN") as copy:
            for number in range(1, each + 1):
                copy.write_row((device_id(number), 0, f"device {number}", "{t,f,NULL}", b"\x00\xff".hex()))
        connection.commit()
        connection.autocommit = True
        connection.execute("ANALYZE")


class Workload:
    """Writers on their threads; `stop` ends them and raises what went wrong in one."""

    def __init__(
        self,
        dsn: str,
        *,
        seed: int,
        keys: int,
        writers: int = 4,
        transactions_per_second: float = 400,
        truncate: bool = True,
        large_values: bool = True,
        giant_rows: int = 0,
        bulk_rows: int = 0,
        patient: bool = False,
    ) -> None:
        """`keys`: how many keys of each table are drawn from.

        `giant_rows`: so many changes has a transaction now and then; `bulk_rows`: every second one, besides. `patient`:
        writers connect again when the server was away, instead of failing.
        """
        self.record = Record()
        self._dsn = dsn
        self._seed = seed
        self._keys = keys
        self._writers = writers
        self._pause = writers / transactions_per_second
        self._truncate = truncate
        self._large_values = large_values
        self._giant_rows = giant_rows
        self._bulk_rows = bulk_rows
        self._patient = patient
        self._revs = itertools.count(1)
        self._name = uuid.uuid4().hex
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._rounds = 0

    def start(self) -> None:
        """Start writing, perhaps again."""
        self._rounds += 1
        self._stop.clear()
        self._threads = [threading.Thread(target=self._guarded, args=(number,)) for number in range(self._writers)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop writing; all that is recorded is committed."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def act(self, *actions: Callable[[Writer], None]) -> None:
        """Commit one transaction with these actions of a writer, while none is at work."""
        writer = Writer(self, 0)
        try:
            for action in actions:
                action(writer)
            writer.commit(keep=True)
        finally:
            writer.connection.close()

    @contextmanager
    def running(self) -> Iterator[Record]:
        """Write while the block runs."""
        self.start()
        try:
            yield self.record
        finally:
            self.stop()

    def _guarded(self, number: int) -> None:
        try:
            writer = Writer(self, number)
            try:
                writer.run()
            finally:
                writer.connection.close()
        except BaseException as error:
            self._failures.append(error)


class Writer:
    """One connection."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.workload = workload
        self.connection = psycopg.connect(workload._dsn)
        row = self.connection.execute("SELECT current_setting('max_prepared_transactions')::int").fetchone()
        self.connection.rollback()
        self.may_prepare = row is not None and row[0] >= workload._writers
        self.number = number
        self.random = random.Random(f"{workload._seed}/{number}/{workload._rounds}")
        self.changes: list[tuple[str, Key, str]] = []
        self.truncated: list[str] = []
        self.partial: list[tuple[str, Key]] = []
        self.xid = 0
        self.tokens = itertools.count()
        self.committing: str | None = None
        """The name of a transaction whose end is not known yet."""

    def run(self) -> None:
        next_truncate, next_giant = time.monotonic() + 2, time.monotonic() + 1
        while not self.workload._stop.is_set():
            try:
                self._transaction()
                if self.number == 0 and self.workload._truncate and time.monotonic() > next_truncate:
                    next_truncate += 10
                    self._truncate()
                if self.number == 0 and self.workload._giant_rows and time.monotonic() > next_giant:
                    next_giant += 20
                    self.changes, self.partial, self.truncated = [], [], []
                    self.write_giant()
                    self.commit(keep=True)
            except (psycopg.OperationalError, psycopg.Rollback):  # or one that could not be rolled back any more
                if not self.workload._patient:
                    raise
                self._reconnect()
            self.workload._stop.wait(self.random.expovariate(1 / self.workload._pause))

    def _reconnect(self) -> None:
        """Come back to a server that was away, and learn what became of the transaction in hand."""
        self.connection.close()
        deadline = time.monotonic() + _AWAY_SECONDS
        while True:
            try:
                self.connection = psycopg.connect(self.workload._dsn)
                self._settle()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _settle(self) -> None:
        if self.committing is None:
            return
        self.connection.autocommit = True
        if self.connection.execute("SELECT FROM pg_prepared_xacts WHERE gid = %s", [self.committing]).rowcount:
            self.connection.execute(f"COMMIT PREPARED '{self.committing}'".encode())
        self.connection.autocommit = False
        # Waits for a session that has not seen yet that we are gone. (After a crash xids are given out again.)
        committed = not self.connection.execute(_MARK_COMMITTED, [self.committing]).rowcount
        self.connection.rollback()
        if committed:
            self._note()
        self.committing = None

    def _transaction(self) -> None:
        self.changes, self.partial, self.truncated = [], [], []
        self.connection.execute("SELECT 1")  # begins the transaction, so that what follows are savepoints in it
        try:
            for _ in range(self.random.choice((1, 1, 2, 3, 8))):
                before = len(self.changes)
                with self.connection.transaction() if self.random.random() < 0.1 else _nothing() as savepoint:
                    self.random.choice(_ACTIONS)(self)
                    if savepoint is not None and self.random.random() < 0.5:
                        del self.changes[before:]
                        raise psycopg.Rollback(savepoint)
            if self.workload._bulk_rows and self.random.random() < 0.5:
                self.update_items(self.workload._bulk_rows)
            self.commit(keep=self.random.random() > 0.05)
        except psycopg.errors.UniqueViolation:  # a key change met a key that is there
            self.connection.rollback()

    def _truncate(self) -> None:
        self.changes, self.partial, self.truncated = [], [], ["tags"]
        self.connection.execute("TRUNCATE tags")
        for number in range(self.number, 40, self.workload._writers):
            self._insert_tag(f"t{number}")
        self.commit(keep=True)

    def write_giant(self) -> None:
        """So many rows as the workload's `giant_rows` says."""
        owned = range(self.number + 1, self.workload._giant_rows * self.workload._writers, self.workload._writers)
        self._write(
            "upsert", "parts",
            "INSERT INTO parts SELECT 1000000 + i, %s, 'giant', i %% 2 FROM unnest(%s::bigint[]) AS i"
            " ON CONFLICT (id, region) DO UPDATE SET rev = excluded.rev",
            self._rev(), list(owned),
        )  # fmt: skip

    def commit(self, *, keep: bool) -> None:
        """Commit and record what was done since the transaction began; else roll it back."""
        if not keep or not (self.changes or self.truncated):
            self.connection.rollback()
            return
        row = self.connection.execute("SELECT pg_current_xact_id()::text::numeric % 4294967296").fetchone()
        assert row is not None
        self.xid, name = int(row[0]), f"{self.workload._name}/{self.number}/{next(self.tokens)}"
        if self.workload._patient:
            self.connection.execute(_MARK_COMMITTED, [name])
        self.committing = name
        if self.may_prepare and self.random.random() < 0.02:
            self._commit_in_two_phases(name)
        else:
            self.connection.commit()
            self._note()
        self.committing = None

    def _commit_in_two_phases(self, gid: str) -> None:
        keep = self.random.random() < 0.8
        self.connection.execute(f"PREPARE TRANSACTION '{gid}'".encode())
        self.connection.rollback()  # nothing: the transaction is the server's now
        self.connection.autocommit = True
        self.workload._stop.wait(self.random.uniform(0, 0.1))  # other transactions are committed in between
        self.connection.execute(f"{'COMMIT' if keep else 'ROLLBACK'} PREPARED '{gid}'".encode())
        self.connection.autocommit = False
        if keep:
            self._note()

    def _note(self) -> None:
        """What this transaction did is committed."""
        xid, record = self.xid, self.workload.record
        with record.lock:
            record.transactions += 1
            for table in self.truncated:
                record.truncates[table].append(xid)
            for table, key, op in self.changes:
                record.changes[table, key].append((op, xid))
            for table, key in self.partial:
                record.merged.add((table, key, xid))

    # --- actions -----------------------------------------------------------------------------------------------------

    def _number(self) -> int:
        """A key that this connection owns."""
        return (
            self.random.randrange(self.workload._keys // self.workload._writers) * self.workload._writers + self.number
        )

    def _write(self, op: str, table: str, statement: str, *parameters: object) -> None:
        """Run a statement that returns the keys of the rows it changed."""
        returning = ", ".join(f"{name}::text" for name in COLUMNS[table][2])
        cursor = self.connection.execute(f"{statement} RETURNING {returning}".encode(), parameters)
        self.changes += [(table, tuple(row), op) for row in cursor.fetchall()]

    def _rev(self) -> int:
        return next(self.workload._revs)

    def _body(self) -> str | None:
        if not self.workload._large_values or self.random.random() < 0.7:
            return None
        return self.random.randbytes(2500).hex()

    def update_account(self) -> None:
        number = self._number()
        cursor = self.connection.execute("SELECT FROM accounts WHERE id = %s AND body IS NOT NULL", [number])
        if cursor.rowcount:
            self.partial.append(("accounts", (str(number),)))
        self._write(
            "upsert", "accounts", "UPDATE accounts SET rev = %s, balance = balance + 1 WHERE id = %s",
            self._rev(), number,
        )  # fmt: skip

    def update_body(self) -> None:
        self._write(
            "upsert", "accounts", "UPDATE accounts SET rev = %s, body = %s WHERE id = %s",
            self._rev(), self._body(), self._number(),
        )  # fmt: skip

    def insert_account(self) -> None:
        self._write(
            "upsert", "accounts",
            "INSERT INTO accounts (id, rev, name, balance, doc, body) VALUES (%s, %s, %s, 1, %s, %s)"
            " ON CONFLICT DO NOTHING",
            self._number(), self._rev(), 'PLANTED VALUE quote " back \\ tab \t Łódź', '{"a": [1, null]}', self._body(),
        )  # fmt: skip

    def delete_account(self) -> None:
        self._write("delete", "accounts", "DELETE FROM accounts WHERE id = %s", self._number())

    def change_account_key(self) -> None:
        self._change_key("accounts", "id = %s", (self._number(),), ("id",), (self._number(),))

    def change_item_key(self) -> None:
        old, new = self._number(), self._number()
        self._change_key(
            "items", "tenant = %s AND code = %s", (old % 40, f"c{old}"), ("tenant", "code"), (new % 40, f"c{new}")
        )

    def chain_item_keys(self) -> None:
        """One row takes two keys in turn, or two rows move up by one key each: 1->2->3."""
        first, second, third = self._number(), self._number(), self._number()
        places = [(number % 40, f"c{number}") for number in (first, second, third)]
        moves = [(0, 1), (1, 2)] if self.random.random() < 0.5 else [(1, 2), (0, 1)]
        for number in (second, third) if moves[0] == (0, 1) else (third,):
            self._write(
                "delete", "items", "DELETE FROM items WHERE tenant = %s AND code = %s", number % 40, f"c{number}"
            )
        for old, new in moves:
            self._change_key("items", "tenant = %s AND code = %s", places[old], ("tenant", "code"), places[new])

    def change_part_region(self) -> None:
        number = self._number()
        region = self.random.randrange(2)
        self._change_key("parts", "id = %s AND region = %s", (number, region), ("id", "region"), (number, 1 - region))

    def _change_key(
        self, table: str, where: str, old: tuple[object, ...], columns: tuple[str, ...], new: tuple[object, ...]
    ) -> None:
        assignments = ", ".join(f"{column} = %s" for column in columns)
        # a large value that did not change is not in the log, so the row under its new key is published as a re-read
        large = "body IS NOT NULL" if table == "accounts" else "false"
        cursor = self.connection.execute(
            f"UPDATE {table} SET rev = %s, {assignments} WHERE {where} RETURNING {large}".encode(),
            (self._rev(), *new, *old),
        )
        if (row := cursor.fetchone()) is not None:
            if old != new:
                self.changes.append((table, tuple(map(str, old)), "delete"))
            if old == new and row[0]:
                self.partial.append((table, tuple(map(str, new))))
            if old == new or not row[0]:
                self.changes.append((table, tuple(map(str, new)), "upsert"))

    def update_item(self) -> None:
        number = self._number()
        self._write(
            "upsert", "items", "UPDATE items SET rev = %s, quantity = quantity + 1 WHERE tenant = %s AND code = %s",
            self._rev(), number % 40, f"c{number}",
        )  # fmt: skip

    def update_items(self, count: int) -> None:
        names = [f"c{self._number()}" for _ in range(count)]
        self._write(
            "upsert", "items", "UPDATE items SET rev = %s, quantity = quantity + 1 WHERE code = ANY(%s)",
            self._rev(), names,
        )  # fmt: skip

    def delete_item(self) -> None:
        number = self._number()
        self._write("delete", "items", "DELETE FROM items WHERE tenant = %s AND code = %s", number % 40, f"c{number}")

    def insert_item(self) -> None:
        number = self._number()
        self._write(
            "upsert", "items", "INSERT INTO items VALUES (%s, %s, %s, 1, NULL) ON CONFLICT DO NOTHING",
            number % 40, f"c{number}", self._rev(),
        )  # fmt: skip

    def upsert_tag(self) -> None:
        self._insert_tag(f"t{self._number()}")

    def _insert_tag(self, name: str) -> None:
        self._write(
            "upsert", "tags",
            "INSERT INTO tags VALUES (%s, %s, 0.1) ON CONFLICT (name) DO UPDATE"
            " SET rev = EXCLUDED.rev, weight = tags.weight / 3",
            name, self._rev(),
        )  # fmt: skip

    def delete_tag(self) -> None:
        self._write("delete", "tags", "DELETE FROM tags WHERE name = %s", f"t{self._number()}")

    def update_device(self) -> None:
        self._write(
            "upsert", "devices", "UPDATE devices SET rev = %s, flags = %s WHERE id = %s",
            self._rev(), [True, None, False], device_id(self._number()),
        )  # fmt: skip

    def replace_device(self) -> None:
        name = device_id(self._number())
        self._write("delete", "devices", "DELETE FROM devices WHERE id = %s", name)
        self._write(
            "upsert", "devices", "INSERT INTO devices VALUES (%s, %s, 'again', NULL, '\\x00')", name, self._rev()
        )

    def copy_parts(self) -> None:
        """Many rows under one LSN: replace some by way of COPY."""
        numbers = sorted({self._number() for _ in range(5)})
        self._write("delete", "parts", "DELETE FROM parts WHERE id = ANY(%s)", numbers)
        with self.connection.cursor().copy("COPY parts (id, region, rev, name) FROM STDIN") as copy:
            for number in numbers:
                copy.write_row((number, number % 2, self._rev(), "copied"))
                self.changes.append(("parts", (str(number), str(number % 2)), "upsert"))

    def update_part(self) -> None:
        self._write("upsert", "parts", "UPDATE parts SET rev = %s WHERE id = %s", self._rev(), self._number())


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


_ACTIONS: list[Callable[[Writer], None]] = [
    Writer.update_account,
    Writer.update_account,
    Writer.update_account,
    Writer.update_body,
    Writer.insert_account,
    Writer.delete_account,
    Writer.change_account_key,
    Writer.change_item_key,
    Writer.chain_item_keys,
    Writer.change_part_region,
    Writer.update_item,
    Writer.insert_item,
    Writer.delete_item,
    Writer.upsert_tag,
    Writer.delete_tag,
    Writer.update_device,
    Writer.replace_device,
    Writer.copy_parts,
    Writer.update_part,
]
