"""A pipeline written by hand, and sinks that read it: what the other test_sink files are written with."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self, cast

import psycopg
import pytest
import redis

from sinks import whole_rows
from sinks.bulk import upsert_many
from sinks.config import SinkConfig
from sinks.table_map import EmbedTables
from sinks.worker import Worker
from tests.fork_server import Forked, read_whole
from transforms import wire
from transforms.address import Address
from transforms.config import PipelineConfig, TransportConfig
from transforms.keys import Keys
from transforms.names import TableName
from transforms.position import LSN
from transforms.schema import SchemaColumn, SchemaDocument
from transforms.secret import Secret

DEADLINE_SECONDS = 120.0
TS = b"1700000000000000"

Words = list[bytes]


def column(name: str, type_: str, *, nullable: bool = True) -> SchemaColumn:
    return SchemaColumn(name, type_, type_, nullable)


CUSTOMER = SchemaDocument(
    "customer", 1, "customer", ("id",), (column("id", "integer", nullable=False), column("name", "text"))
)


def upsert(key: object, state: object, *more: bytes, type_: str = "customer.v1") -> Words:
    """`key` and `state`: JSON text, or what becomes it."""
    return [*wire.upsert_words(type_.encode(), json_text(key), json_text(state), TS, b"7"), *more]


def customer(id_: int, name: object, *more: bytes) -> Words:
    return upsert({"id": id_}, {"id": id_, "name": name}, *more)


def delete(key: object, type_: str = "customer.v1") -> Words:
    return wire.delete_words(type_.encode(), json_text(key), TS, b"7")


def truncate(type_: str = "customer.v1") -> Words:
    return wire.truncate_words(type_.encode(), TS, b"7")


def mark(name: str, run: str, event: str = "customer.v1", to: str | None = None) -> Words:
    return wire.mark_words(name, {"run": run, "event": event}, TS, to)


def json_text(value: object) -> bytes:
    return value if isinstance(value, bytes) else wire.compact_json(value)


def wait_until(condition: Callable[[], object], promise: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {promise}")
        time.sleep(0.02)


class Pipeline:
    """A pipeline as its reader would have left it, a replica's database, and sinks between the two."""

    def __init__(self, redis_url: str, target_dsn: str, name: str) -> None:
        self.redis_url, self.target_dsn, self.name = redis_url, target_dsn, name
        self.keys = Keys(name)
        self.lsn = 1000
        self.tables = {"customer.v1": "replica.customers"}
        self.embeds: dict[str, dict[str, str]] = {}
        """Event -> embed -> its table."""
        self.adopt = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.redis = self._stack.enter_context(redis.Redis.from_url(self.redis_url))
        self.connect_again()
        self.begin("one", CUSTOMER)
        return self

    def connect_again(self) -> None:
        """To the target, whose server may have ended the connection before."""
        self.target = self._stack.enter_context(psycopg.connect(self.target_dsn, autocommit=True))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- the reader's part -------------------------------------------------------------------------------------------

    def begin(self, incarnation: str, *documents: SchemaDocument) -> None:
        """Make the pipeline (again): its keys are gone, its streams are empty."""
        for key in self.redis.scan_iter(f"{self.name}:*"):
            self.redis.delete(key)
        fields = {"epoch": "1", "incarnation": incarnation, "published": str(LSN(self.lsn))}
        self.redis.hset(self.keys.meta, mapping=cast(Any, fields))
        self.describe(*documents)

    def describe(self, *documents: SchemaDocument) -> None:
        for document in documents:
            self.redis.hset(self.keys.schema, document.label, document.to_json())

    def transaction(self, *entries: Words, stream: str = "customer", end: bool = True) -> str:
        """Publish a transaction; returns the id of its last entry."""
        self.lsn += 100
        pipe = self.redis.pipeline(transaction=True)
        for number, words in enumerate(entries, 1):
            last = [b"end", b"1"] if end and number == len(entries) else []
            entry_id = f"{self.lsn}-{number * 1_000_000}"
            self._note_run(words)
            pipe.execute_command("XADD", self.keys.stream(stream, 1), entry_id, *words, *last)
        if end:
            stands = {"published": str(LSN(self.lsn + 8)), f"last:{stream}": entry_id}
            pipe.hset(self.keys.meta, mapping=cast(Any, stands))
        pipe.execute()
        return entry_id

    def _note_run(self, words: Words) -> None:
        """A run that a mark is of is stored before the mark is published."""
        fields = dict(zip(words[::2], words[1::2], strict=True))
        if fields[b"op"] == b"mark":
            data, to = json.loads(fields[b"data"]), fields.get(b"to")
            self.store_run(data["run"], data["event"], to=to and to.decode(), state="running")

    def store_run(self, run: str, event: str, **more: object) -> None:
        """What the reader keeps of a snapshot run."""
        self.redis.hset(self.keys.runs, run, json.dumps({"id": run, "event": event, **more}))

    @property
    def published(self) -> str:
        return str(LSN(self.lsn + 8))

    # --- the sink's part ---------------------------------------------------------------------------------------------

    def config(self, sink: str = "billing") -> SinkConfig:
        return SinkConfig(
            PipelineConfig(name=self.name),
            TransportConfig(url=Secret(self.redis_url)),
            sink,
            Address(f"sinks.{sink}", Secret(self.target_dsn)),
            {label: TableName.parse(table) for label, table in self.tables.items()},
            self.adopt,
            embeds={
                label: EmbedTables(
                    ("sinks", sink, "tables", label, "embeds"),
                    {name: TableName.parse(table) for name, table in embeds.items()},
                )
                for label, embeds in self.embeds.items()
            },
        )

    def apply(self, sink: str = "billing") -> int:
        """`cdc-sink run SINK --once`, in this process; returns the exit code."""
        return Worker(self.config(sink), threading.Event(), once=True, connect_timeout_seconds=60).run()

    def config_file(self, directory: Path, sink: str = "billing") -> Path:
        path = directory / "cdc.toml"
        lines = [self._line(label, table) for label, table in self.tables.items()]
        path.write_text(
            f'[pipeline]\nname = "{self.name}"\n[transport]\nurl = "{self.redis_url}"\n'
            f'[sinks.{sink}]\ntype = "postgres"\ndsn = {json.dumps(self.target_dsn)}\n'
            f"adopt = {str(self.adopt).lower()}\n[sinks.{sink}.tables]\n" + "\n".join(lines)
        )
        return path

    def _line(self, label: str, table: str) -> str:
        if not (embeds := self.embeds.get(label)):
            return f"{json.dumps(label)} = {json.dumps(table)}"
        written = ", ".join(f"{json.dumps(name)} = {json.dumps(child)}" for name, child in embeds.items())
        return f"{json.dumps(label)} = {{ table = {json.dumps(table)}, embeds = {{ {written} }} }}"

    def execute(self, query: str, *parameters: object) -> None:
        self.target.execute(query.encode(), parameters)

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.target.execute(query.encode(), parameters).fetchall()

    def customers(self) -> dict[int, str | None]:
        return dict(cast(Any, self.rows("SELECT id, name FROM replica.customers ORDER BY id")))

    def checkpoint(self, stream: str = "customer", sink: str = "billing") -> str:
        query = (
            "SELECT (commit_lsn - '0/0')::text || '-' || ordinal FROM cdc.checkpoint WHERE stream = %s AND sink = %s"
        )
        return str(self.rows(query, stream, sink)[0][0])

    def status(self, sink: str = "billing") -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(cast(bytes, self.redis.get(self.keys.sink_status(sink)) or b"{}")))

    def requests(self) -> list[tuple[list[str], str]]:
        """The snapshots that were asked for: events, sink."""
        entries = cast(list[Any], self.redis.xrange(self.keys.requests))
        return [(json.loads(fields[b"events"]), fields[b"sink"].decode()) for _, fields in entries]


def use_technique(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers in this process apply new rows by COPY however few (`copy`), or as their number asks for."""
    if name == "copy":
        monkeypatch.setattr(whole_rows, "upsert_many", partial(upsert_many, copy_rows=1))


class SinkProcess:
    """`cdc-sink` as a real process, killed at the end if it is still there."""

    def __init__(self, config: Path, *arguments: str, sink: str = "billing") -> None:
        whole = [*arguments[:1], sink, *arguments[1:], "-c", str(config)]
        with ExitStack() as files:
            self._out, self._err = files.enter_context(TemporaryFile()), files.enter_context(TemporaryFile())
            self._files = files.pop_all()
        self.process = Forked("sinks.cli", whole, os.environ, self._out, self._err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)
        self._files.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def end(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_SECONDS)

    def output(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, standard output, standard error."""
        return self.process.wait(DEADLINE_SECONDS), read_whole(self._out), read_whole(self._err)


def command(config: Path, *arguments: str, sink: str = "billing") -> tuple[int, str, str]:
    """Run `cdc-sink ARGUMENTS[0] SINK ARGUMENTS[1:]` to its end: exit code, standard output, standard error."""
    with SinkProcess(config, *arguments, sink=sink) as process:
        return process.output()
