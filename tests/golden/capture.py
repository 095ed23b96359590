"""Captures messages from real servers: `python -m tests.golden.capture` writes pgoutput.json anew.

Every step below is one transaction; its messages are named after it. LSNs, transaction ids and times are those of the
capture, so tests read them out of the messages instead of expecting them.
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Iterator, Sequence

import psycopg

from cdc import walsender
from cdc.demo.servers import PostgresServer
from cdc.replication import ReplicationConnection
from tests import golden
from transforms.address import Address
from transforms.secret import Secret

VERSIONS = (16, 18)
KINDS = {
    **{"B": "begin", "C": "commit", "O": "origin", "R": "relation", "Y": "type"},
    **{"I": "insert", "U": "update", "D": "delete", "T": "truncate", "M": "message"},
}
OUTSIDE = "non-transactional message"
_DEADLINE_SECONDS = 30.0

TABLES = (
    "CREATE TYPE mood AS ENUM ('calm', 'tense')",
    "CREATE DOMAIN points AS integer CHECK (VALUE >= 0)",
    """CREATE TABLE customers (id bigint PRIMARY KEY, name varchar(40) NOT NULL, tags text[], feeling mood,
       score points, doubled bigint GENERATED ALWAYS AS (id * 2) STORED)""",
    "CREATE TABLE documents (id integer PRIMARY KEY, title text, body text)",
    "ALTER TABLE documents ALTER body SET STORAGE EXTERNAL",
    "CREATE TABLE audited (id integer PRIMARY KEY, note text, body text)",
    "ALTER TABLE audited ALTER body SET STORAGE EXTERNAL",
    "ALTER TABLE audited REPLICA IDENTITY FULL",
    "CREATE TABLE coded (id integer PRIMARY KEY, code text NOT NULL UNIQUE, note text)",
    "ALTER TABLE coded REPLICA IDENTITY USING INDEX coded_code_key",
    "CREATE TABLE logged (note text, at timestamptz)",
    "ALTER TABLE logged REPLICA IDENTITY NOTHING",
    "CREATE TABLE lines (order_id integer, line smallint, item text, PRIMARY KEY (order_id, line))",
    'CREATE SCHEMA "Größe"',
    """CREATE TABLE "Größe"."Order ""Lines" ("Id; DROP" integer PRIMARY KEY, "naïve ☃" text)""",
    "CREATE TABLE measures (id integer, day date, value float8, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
    "CREATE TABLE measures_2025 PARTITION OF measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "CREATE TABLE measures_2026 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
    "CREATE TABLE parents (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY)",
    "CREATE TABLE children (id integer PRIMARY KEY, parent integer REFERENCES parents)",
    "CREATE TABLE long_keys (id text PRIMARY KEY, note text)",
    "ALTER TABLE long_keys ALTER id SET STORAGE EXTERNAL",
)

STEPS: tuple[tuple[str, Sequence[str]], ...] = (
    (
        "customers: two rows",
        [
            "INSERT INTO customers VALUES (1, 'Ada', '{a,\"b c\",NULL}', 'calm', 7)",
            "INSERT INTO customers VALUES (2, 'Björn ☃', NULL, NULL, NULL)",
        ],
    ),
    ("customers: change", ["UPDATE customers SET feeling = 'tense' WHERE id = 1"]),
    ("customers: key change", ["UPDATE customers SET id = 3 WHERE id = 2"]),
    ("customers: delete", ["DELETE FROM customers WHERE id = 3"]),
    ("customers: column added", ["ALTER TABLE customers ADD email text", "UPDATE customers SET email = 'a@b.example'"]),
    ("documents: row", ["INSERT INTO documents VALUES (1, 'first', repeat('x', 2100))"]),
    ("documents: unchanged TOAST", ["UPDATE documents SET title = 'second'"]),
    ("documents: key change, unchanged TOAST", ["UPDATE documents SET id = 2"]),
    ("audited: row", ["INSERT INTO audited VALUES (1, 'first', repeat('y', 2100))"]),
    ("audited: unchanged TOAST", ["UPDATE audited SET note = NULL"]),
    ("audited: key change", ["UPDATE audited SET id = 2, body = 'short'"]),
    ("audited: delete", ["DELETE FROM audited"]),
    ("coded: row", ["INSERT INTO coded VALUES (1, 'one', 'n')"]),
    ("coded: other change", ["UPDATE coded SET id = 2"]),
    ("coded: identity change", ["UPDATE coded SET code = 'two'"]),
    ("coded: delete", ["DELETE FROM coded"]),
    ("logged: row", ["INSERT INTO logged VALUES ('a\\b\"c', '2026-01-02 03:04:05.678+01')"]),
    ("lines: row", ["INSERT INTO lines VALUES (1, 1, 'tea'), (1, 2, 'jam')"]),
    ("lines: key change", ["UPDATE lines SET line = 3 WHERE line = 2"]),
    ("lines: delete", ["DELETE FROM lines WHERE line = 1"]),
    ("quoted names: row", ['INSERT INTO "Größe"."Order ""Lines" VALUES (1, \'☃\')']),
    ("measures: row", ["INSERT INTO measures VALUES (1, '2025-06-01', 'Infinity')"]),
    ("measures: to another partition", ["UPDATE measures SET day = '2026-06-01', value = 0.1"]),
    ("parents: row", ["INSERT INTO parents DEFAULT VALUES", "INSERT INTO children VALUES (1, 1)"]),
    ("truncate of one", ["TRUNCATE lines"]),
    ("truncate of two", ["TRUNCATE parents RESTART IDENTITY CASCADE"]),
    (
        "long_keys: row",
        ["INSERT INTO long_keys SELECT string_agg(chr(97 + n % 26), '') FROM generate_series(1, 2100) n"],
    ),
    ("long_keys: unchanged key", ["UPDATE long_keys SET note = 'changed'"]),
    ("transactional message", ["SELECT pg_logical_emit_message(true, 'cdc', 'héllo')"]),
    (OUTSIDE, ["SELECT pg_logical_emit_message(false, 'other', '\\x00ff'::bytea)"]),
    (
        "replicated from elsewhere",
        [
            "SELECT pg_replication_origin_session_setup('elsewhere')",
            "SELECT pg_replication_origin_xact_setup('16/B374D848', '2026-01-01')",
            "INSERT INTO lines VALUES (9, 9, 'from elsewhere')",
        ],
    ),
)


def main() -> None:
    """Write what every server sends to the golden file."""
    entries: list[dict[str, object]] = []
    for version in VERSIONS:
        with PostgresServer.start(version=version) as server:
            entries += [{"server": version, "name": name, "hex": data.hex()} for name, data in capture(server.dsn())]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    golden.FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def capture(dsn: str) -> Iterator[tuple[str, bytes]]:
    """Run all steps in an empty database; yield the name and the bytes of every message."""
    with psycopg.connect(dsn, autocommit=True) as source:
        for statement in TABLES:
            source.execute(statement.encode())
        published = 'FOR TABLES IN SCHEMA public, "Größe" WITH (publish_via_partition_root = true)'
        source.execute(f"CREATE PUBLICATION golden {published}".encode())
        source.execute("SELECT pg_create_logical_replication_slot('golden', 'pgoutput')")
        source.execute("SELECT pg_replication_origin_create('elsewhere')")
        for _, statements in STEPS:
            with source.transaction():
                for statement in statements:
                    source.execute(statement.encode())
    yield from _named(_messages(dsn))


def _messages(dsn: str) -> Iterator[bytes]:
    """Messages up to the commit of the last step."""
    connection = ReplicationConnection(Address("source", Secret(dsn)), "golden")
    try:
        connection.start("golden", "golden")
        commits = sum(name != OUTSIDE for name, _ in STEPS)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while time.monotonic() < deadline:
            for frame in connection.frames():
                if frame[:1] == bytes([walsender.XLOG_DATA]):
                    message = frame[walsender.XLOG_DATA_HEADER_BYTES :]
                    yield message
                    commits -= message[:1] == b"C"
                if not commits:
                    return
            select.select([connection.fileno()], [], [], 1.0)
        raise TimeoutError("the server did not send everything")
    finally:
        connection.close()


def _named(messages: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    steps = iter([name for name, _ in STEPS if name != OUTSIDE])
    step, used = OUTSIDE, set[str]()
    for message in messages:
        kind = KINDS[chr(message[0])]
        if kind == "begin":
            step = next(steps)
        plain = f"{step} / {kind}"
        name, number = plain, 1
        while name in used:
            number += 1
            name = f"{plain} {number}"
        used.add(name)
        yield name, message
        if kind == "commit":
            step = OUTSIDE


if __name__ == "__main__":
    main()
