"""`cdc-sink check` and `cdc-sink tables`: every precondition of a sink, and the DDL of its replica tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from sinks.checkpoint import Checkpoints
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.errors import SinkError
from sinks.ownership import claim, foreign
from sinks.postgres import Database, compose, identifier, readable
from sinks.replica import Examination, examine
from sinks.stream import StreamReader, connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import START
from transforms.schema import SchemaDocument

Verdict = Literal["ok", "warning", "error"]
OLDEST_POSTGRES = 150_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition: whether it holds, and what mends it (SQL or a command) when it does not."""

    verdict: Verdict
    thing: str
    what: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"{self.verdict:7}  {self.thing}: {self.what}",
            *(f"           {line}" for line in self.remedy.splitlines()),
        ]

    def to_dict(self) -> dict[str, str]:
        """For a program."""
        return asdict(self)


def check(config: SinkConfig) -> list[Finding]:
    """Test everything that `cdc-sink run` needs; nothing is changed."""
    client = connect(config.transport.url.reveal())
    keys = Keys(config.pipeline.name)
    control, reader = Control(client, keys, config.name), StreamReader(client, keys, config.name)
    database = Database(config.dsn, f"cdc-sink check {config.name}")
    documents: dict[str, SchemaDocument] = {}
    try:
        return [
            *_guarded("Redis", lambda: _check_redis(config, control, reader, documents)),
            *_guarded("database", lambda: _check_database(config, database, documents)),
        ]
    finally:
        database.close()
        control.close()


def _guarded(thing: str, findings: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from findings()
    except StatecastError as error:
        yield Finding("error", thing, str(error), error.remedy)


def _check_redis(
    config: SinkConfig, control: Control, reader: StreamReader, documents: dict[str, SchemaDocument]
) -> Iterator[Finding]:
    control.ping()
    yield Finding("ok", "Redis", "answers")
    meta = reader.meta()
    if meta is None:
        yield Finding("error", "pipeline", f"{config.pipeline.name} does not exist in this Redis", "cdc run")
        return
    yield Finding("ok", "pipeline", f"published up to {meta.published}")
    documents.update(control.documents(config.tables))
    for label in config.tables:
        if label not in documents:
            mend = f"[events.{label.partition('.')[0]}] at the source, then: cdc run"
            yield Finding("error", f"event {label}", "no schema document is published of it", mend)
            continue
        stream = Keys("").stream(documents[label].stream, meta.epoch)[1:]
        ends = reader.ends(stream)
        last = (
            "nothing is published yet"
            if ends.last_generated == START
            else f"stream {stream} ends at {ends.last_generated}"
        )
        yield Finding("ok", f"event {label}", last)


def _check_database(config: SinkConfig, database: Database, documents: dict[str, SchemaDocument]) -> Iterator[Finding]:
    database.connect()
    checkpoints = Checkpoints(database, config.pipeline.name, config.name, "")
    with database.transaction():
        version, name, role, creates = database.row(
            b"SELECT current_setting('server_version_num')::int, current_database(), current_user,"
            b" has_database_privilege(current_database(), 'CREATE')"
        )
        there = checkpoints.schema_exists()
    if version < OLDEST_POSTGRES:
        yield Finding("error", "database", f"PostgreSQL {version // 10000} is older than 15")
    else:
        yield Finding("ok", "database", f"{name} answers, PostgreSQL {version // 10000}")
    grant = readable(compose("GRANT CREATE ON DATABASE {} TO {}", identifier(name), identifier(role)))
    if not there:
        if not creates:
            yield Finding("error", "schema cdc", "does not exist and this role may not create it", grant)
            return
        yield Finding("ok", "schema cdc", "will be made at the first start")
    else:
        yield Finding("ok", "schema cdc", "exists")
    with database.transaction():
        parked = checkpoints.parked() if there else 0
    if parked:
        yield Finding("warning", "parked events", str(parked), f"cdc-sink dead {config.name} list")
    for label, document in documents.items():
        with database.transaction():
            examination = examine(database, label, config.tables[label], document, registered=there)
        yield from _check_table(config, examination)


def _check_table(config: SinkConfig, examination: Examination) -> Iterator[Finding]:
    thing = f"table {examination.table}"
    if (reason := foreign(examination, config.pipeline.name, config.name, adopt=config.adopt)) is not None:
        yield Finding("error", thing, reason, f"[sinks.{config.name}] adopt = true, or another table")
        return
    for what, mend in examination.misfits:
        yield Finding("error", thing, what, mend)
    for warning in examination.warnings:
        yield Finding("warning", thing, warning)
    if examination.misfits:
        return
    if examination.statements:
        statements = ";\n".join(map(readable, examination.statements)) + ";"
        what = "lacks columns, which are added at the next start" if examination.exists else "will be made"
        yield Finding("ok", thing, what, statements if examination.exists else "")
    else:
        yield Finding("ok", thing, "fits")


def tables(config: SinkConfig, *, apply: bool) -> list[str]:
    """The statements that make the replica tables, and with `apply` their execution. Raises StatecastError."""
    client = connect(config.transport.url.reveal())
    control = Control(client, Keys(config.pipeline.name), config.name)
    database = Database(config.dsn, f"cdc-sink tables {config.name}")
    try:
        documents = control.documents(config.tables)
        if missing := [label for label in config.tables if label not in documents]:
            raise SinkError(
                f"no schema document is published yet of {', '.join(missing)}", remedy="Start the reader: `cdc run`."
            )
        database.connect()
        checkpoints = Checkpoints(database, config.pipeline.name, config.name, "")
        if apply:
            checkpoints.make_schema()
        statements: list[str] = []
        with database.transaction():
            registry = apply or checkpoints.schema_exists()
            known = checkpoints.read() if registry else {}
            for label, document in documents.items():
                examination = examine(database, label, config.tables[label], document, registered=registry)
                statements += map(readable, examination.statements)
                if apply:
                    name, sink = config.pipeline.name, config.name
                    claim(database, examination, name, sink, adopt=config.adopt, wants_snapshot=bool(known))
                elif (
                    reason := foreign(examination, config.pipeline.name, config.name, adopt=config.adopt)
                ) is not None:
                    statements.append(f"-- {reason}")
                else:
                    statements += [mend for _, mend in examination.misfits]
        return [f"{statement};" for statement in statements]
    finally:
        database.close()
        control.close()
