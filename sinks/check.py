"""`cdc-sink check` and `cdc-sink tables`: every precondition of a sink, and the DDL of its replica tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sinks.checkpoint import Checkpoints
from sinks.children.claiming import left_children, mapped_tables
from sinks.children.shape import keep_apart, shapes
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.errors import SinkError
from sinks.ownership import claim, foreign
from sinks.postgres import Database, runnable
from sinks.privileges import OWN_TABLES, Lack, lacking, owns
from sinks.rebuild.record import Record, Records
from sinks.redis_rights import rights
from sinks.replica import Examination, examine
from sinks.stream import StreamReader
from sinks.transport import connect
from transforms import published
from transforms.address import AddressMisread
from transforms.config import ConfigurationError
from transforms.errors import StatecastError
from transforms.finding import Finding
from transforms.keys import Keys
from transforms.position import START
from transforms.redis_server import NEEDED, is_too_old, may_evict
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
    except (ConfigurationError, AddressMisread):  # the file is wrong, and nothing was tested
        raise
    except StatecastError as error:
        yield Finding("error", thing, str(error), error.remedy)


def _server_findings(control: Control) -> Iterator[Finding]:
    product, version, eviction = control.server()
    if is_too_old(product, version):
        yield Finding("error", "Redis", f"{product} {version} is too old", NEEDED)
    else:
        yield Finding("ok", "Redis", f"{product} {version} answers")
    if may_evict(eviction):
        what = f"{eviction}: Redis may remove whole streams when memory is short"
        yield Finding("warning", "maxmemory-policy", what, "CONFIG SET maxmemory-policy noeviction")


def _check_redis(
    config: SinkConfig, control: Control, reader: StreamReader, documents: dict[str, SchemaDocument]
) -> Iterator[Finding]:
    permitted = rights(config.transport.address, Keys(config.pipeline.name), config.name)
    if permitted.may_go_on:
        yield from _server_findings(control)
    yield from permitted.findings
    if not permitted.may_go_on:
        return
    meta = reader.meta()
    if meta is None:
        yield Finding("error", "pipeline", f"{config.pipeline.name} does not exist in this Redis", "cdc run")
        return
    yield Finding("ok", "pipeline", f"published up to {meta.published}")
    documents.update(keep_apart(config, control.documents(config.tables)))
    mapped = control.mapped_events()
    for label in config.tables:
        if label not in documents:
            waited_for = control.missing([label], config.tables)
            yield Finding("error", f"event {label}", waited_for.reason, waited_for.remedy)
            continue
        if mapped is not None and label not in mapped:
            yield Finding("warning", f"event {label}", published.NOT_PUBLISHED, published.remedy(config.name))
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
        version, name, tls, by_socket, backend_pid = database.row(
            b"SELECT current_setting('server_version_num')::int, current_database(),"
            b" (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), inet_server_addr() IS NULL,"
            b" pg_backend_pid()"
        )
        lacks = [lack for table in OWN_TABLES for lack in lacking(database, table, make=True)]
    if version < OLDEST_POSTGRES:
        yield Finding("error", "database", f"PostgreSQL {version // 10000} is older than 15", "Upgrade the database.")
    else:
        way = "over a Unix socket" if by_socket else tls or "not encrypted"
        yield Finding("ok", "database", f"{name} answers, PostgreSQL {version // 10000}, {way}")
    if backend_pid != database.backend_pid:  # a pooler tells its clients process ids of its own
        yield Finding("ok", "pooler", "stands between, which is fine: nothing is kept between transactions")
    if lacks:
        yield from _findings("schema cdc", lacks)
        return
    checkpoints = Checkpoints(database, config.pipeline.name, config.name, "")
    with database.transaction():
        there = checkpoints.schema_exists()
        parked = checkpoints.parked() if there else 0
    yield Finding("ok", "schema cdc", "exists" if there else "will be made at the first start")
    if parked:
        yield Finding("warning", "parked events", str(parked), f"cdc-sink dead {config.name} list")
    for event, label, table, document in mapped_tables(config, documents):
        with database.transaction():
            lacks = lacking(database, table)
            if lacks:
                yield from _findings(f"table {table}", lacks)
                continue
            examination = examine(database, label, table, document, registered=there)
            mine = not examination.exists or owns(database, table)
            rebuilt = _rebuilds(config, database).get(event) if there else None
        if rebuilt is not None:
            yield Finding("ok", f"table {table}", f"is being rebuilt: {rebuilt}")
            examination.misfits = [misfit for misfit in examination.misfits if not misfit.column]
        yield from _check_table(config, examination, mine=mine)
    for label, document in documents.items() if there else ():
        with database.transaction():
            left = left_children(database, config, label, shapes(config, label, document))
        for found in left:
            if found.is_news:
                yield Finding("ok", f"table {found.table}", f"embed {found.field} leaves it at the next start")
            else:
                yield Finding("warning", f"table {found.table}", found.reason, found.remedy)


def _findings(thing: str, lacks: Sequence[Lack]) -> Iterator[Finding]:
    """Each thing that is missing, once."""
    for what, grant in dict.fromkeys(lacks):
        yield Finding("error", thing, what, f"{grant};")


def _check_table(config: SinkConfig, examination: Examination, *, mine: bool) -> Iterator[Finding]:
    thing = f"table {examination.table}"
    if (reason := foreign(examination, config.pipeline.name, config.name, adopt=config.adopt)) is not None:
        yield Finding("error", thing, reason, f"[sinks.{config.name}] adopt = true, or another table")
        return
    for misfit in examination.misfits:
        yield Finding("error", thing, misfit.what, _complete(misfit.mend))
    for warning in examination.warnings:
        yield Finding("warning", thing, warning)
    if examination.misfits:
        return
    if examination.statements:
        statements = "\n".join(map(runnable, examination.statements))
        if not examination.exists:
            yield Finding("ok", thing, "will be made")
        elif mine:
            yield Finding("ok", thing, "lacks columns, which are added at the next start", statements)
        else:
            yield Finding("error", thing, "lacks columns, and this role does not own it", statements)
    else:
        yield Finding("ok", thing, "fits")


def _complete(mend: str) -> str:
    """What mends a misfit, as SQL that may stand among others."""
    return mend if mend.startswith("--") else f"{mend};"


def _rebuilds(config: SinkConfig, database: Database) -> dict[str, Record]:
    """What is being rebuilt, by event, in the transaction in hand."""
    records = Records(database, config.pipeline.name, config.name).in_hand()
    return {record.event: record for record in records if config.tables.get(record.event) == record.table}


def tables(config: SinkConfig, *, apply: bool) -> list[str]:
    """The statements that make the replica tables, and with `apply` their execution. Raises StatecastError."""
    client = connect(config.transport.address)
    control = Control(client, Keys(config.pipeline.name), config.name)
    database = Database(config.address, f"cdc-sink tables {config.name}")
    try:
        documents = keep_apart(config, control.documents(config.tables))
        if missing := [label for label in config.tables if label not in documents]:
            waited_for = control.missing(missing, config.tables)
            raise SinkError(waited_for.reason, remedy=waited_for.remedy)
        database.connect()
        checkpoints = Checkpoints(database, config.pipeline.name, config.name, "")
        if apply:
            checkpoints.make_schema()
        statements: list[str] = []
        with database.transaction():
            registry = apply or checkpoints.schema_exists()
            known = checkpoints.read() if registry else {}
            rebuilds = _rebuilds(config, database) if registry else {}
            for event, label, table, document in mapped_tables(config, documents):
                examination = examine(database, label, table, document, registered=registry)
                statements += map(runnable, examination.statements)
                name, sink = config.pipeline.name, config.name
                if (rebuilt := rebuilds.get(event)) is not None:
                    statements.append(f"-- {table} is being rebuilt: {rebuilt}")
                if apply:
                    claim(
                        database, examination, name, sink,
                        adopt=config.adopt, wants_snapshot=bool(known), is_rebuilt=rebuilt is not None,
                    )  # fmt: skip
                elif (
                    reason := foreign(examination, config.pipeline.name, config.name, adopt=config.adopt)
                ) is not None:
                    statements.append(f"-- {reason}")
                else:
                    statements += (_complete(misfit.mend) for misfit in examination.misfits)
        return list(dict.fromkeys(statements))  # tables may share a schema that is to be made
    finally:
        database.close()
        control.close()
