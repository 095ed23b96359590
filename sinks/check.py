"""`cdc-sink check` and `cdc-sink tables`: every precondition of a sink, and the DDL of its replica tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sinks.checkpoint import Checkpoints
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.errors import AccessDenied, SinkError
from sinks.ownership import claim, foreign
from sinks.postgres import Database, compose, identifier, readable, verbatim
from sinks.replica import Examination, examine
from sinks.stream import StreamReader, connect
from transforms.errors import StatecastError
from transforms.finding import Finding
from transforms.keys import Keys
from transforms.names import TableName
from transforms.position import START
from transforms.schema import SchemaDocument

OLDEST_POSTGRES = 150_000


def check(config: SinkConfig) -> list[Finding]:
    """Test everything that `cdc-sink run` needs; nothing is changed."""
    client = connect(config.transport.address)
    keys = Keys(config.pipeline.name)
    control, reader = Control(client, keys, config.name), StreamReader(client, keys, config.name)
    database = Database(config.address, f"cdc-sink check {config.name}")
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
    with database.transaction():
        version, name, role, creates, tls, by_socket, backend_pid = database.row(
            b"SELECT current_setting('server_version_num')::int, current_database(), current_user,"
            b" has_database_privilege(current_database(), 'CREATE'),"
            b" (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), inet_server_addr() IS NULL,"
            b" pg_backend_pid()"
        )
        schema = database.rows(
            b"SELECT has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE')"
            b" FROM pg_namespace WHERE nspname = 'cdc'"
        )
    if version < OLDEST_POSTGRES:
        yield Finding("error", "database", f"PostgreSQL {version // 10000} is older than 15", "Upgrade the database.")
    else:
        way = "over a Unix socket" if by_socket else tls or "not encrypted"
        yield Finding("ok", "database", f"{name} answers, PostgreSQL {version // 10000}, {way}")
    if backend_pid != database.backend_pid:  # a pooler tells its clients process ids of its own
        yield Finding("ok", "pooler", "stands between, which is fine: nothing is kept between transactions")
    if schema and not schema[0][0]:
        # A snapshot run over rows collects its keys in a table of its own.
        grant = compose("GRANT USAGE, CREATE ON SCHEMA cdc TO {};", identifier(role))
        yield Finding("error", "schema cdc", "this role lacks USAGE or CREATE on it", readable(grant))
        return
    checkpoints = Checkpoints(database, config.pipeline.name, config.name, "")
    with database.transaction():
        there = checkpoints.schema_exists()
    if there:
        yield Finding("ok", "schema cdc", "exists")
        tables = [TableName("cdc", table) for table in ("checkpoint", "replica", "dead_event")]
        if lacking := [finding for table in tables for finding in _check_privileges(database, table, role)]:
            yield from lacking
            return
        with database.transaction():
            parked = checkpoints.parked()
        if parked:
            yield Finding("warning", "parked events", str(parked), f"cdc-sink dead {config.name} list")
    elif not schema and not creates:
        grant = compose("GRANT CREATE ON DATABASE {} TO {};", identifier(name), identifier(role))
        yield Finding("error", "schema cdc", "does not exist and this role may not create it", readable(grant))
    else:
        yield Finding("ok", "schema cdc", "will be made at the first start")
    for label, document in documents.items():
        yield from _check_replica(config, database, label, document, role, registered=there)


def _check_replica(
    config: SinkConfig, database: Database, label: str, document: SchemaDocument, role: str, *, registered: bool
) -> Iterator[Finding]:
    table = config.tables[label]
    try:
        yield from _check_privileges(database, table, role)
        with database.transaction():
            examination = examine(database, label, table, document, registered=registered)
    except AccessDenied as error:
        grant = compose("GRANT USAGE ON SCHEMA {} TO {};", identifier(table.schema), identifier(role))
        yield Finding("error", f"table {table}", str(error), readable(grant))
    else:
        yield from _check_table(config, examination)


def _check_privileges(database: Database, table: TableName, role: str) -> Iterator[Finding]:
    with database.transaction():
        lacking = database.rows(
            b"SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p"
            b" WHERE NOT has_table_privilege(to_regclass(%s), p)",
            [str(table)],
        )
    if lacking:
        names = ", ".join(row[0] for row in lacking)
        grant = compose("GRANT {} ON TABLE {} TO {};", verbatim(names), identifier(table), identifier(role))
        yield Finding("error", f"table {table}", f"this role lacks {names} on it", readable(grant))


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
    client = connect(config.transport.address)
    control = Control(client, Keys(config.pipeline.name), config.name)
    database = Database(config.address, f"cdc-sink tables {config.name}")
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
        return [f"{statement};" for statement in dict.fromkeys(statements)]  # tables may share a schema to be made
    finally:
        database.close()
        control.close()
