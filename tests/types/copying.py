"""The states of a stream, written once more by COPY: it must read the same from them as the JSON functions do."""

from __future__ import annotations

from typing import Any, cast

import psycopg
from psycopg import sql

from cdc.control import Control
from sinks import bulk
from sinks.compaction import Change
from sinks.ownership import claim
from sinks.postgres import Database
from sinks.replica import Replica, examine
from tests.processes import Pipeline
from transforms.address import Address
from transforms.names import TableName
from transforms.secret import Secret

SCHEMA = "copied"


class Copying:
    """Replicas beside the replicas, in a schema of their own."""

    def __init__(self, target_dsn: str, target: psycopg.Connection[Any], pipeline: Pipeline) -> None:
        self._target = target
        self._pipeline = pipeline
        self._control = Control(pipeline.redis, pipeline.keys)
        self._database = Database(Address("sinks.test", Secret(target_dsn)), "copying")
        self._replicas: dict[str, Replica] = {}

    def close(self) -> None:
        self._database.close()

    def differences(self, table: str) -> list[tuple[str, str]]:
        """Rows that COPY makes other than they are in the replica."""
        self._database.connect()
        changes = self._changes(f"{table}.v1")
        if not changes:
            return []
        replica = self._replica(table)
        self._target.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(SCHEMA, table)))
        with self._database.transaction():
            bulk.upsert_many(self._database, replica, changes, copy_rows=1)
        statement = sql.SQL(
            "SELECT c::text, r::text FROM {} AS c LEFT JOIN {} AS r USING (id) WHERE c::text IS DISTINCT FROM r::text"
        ).format(sql.Identifier(SCHEMA, table), sql.Identifier("replica", table))
        return self._target.execute(statement).fetchall()

    def _replica(self, table: str) -> Replica:
        if table not in self._replicas:
            name, document = TableName(SCHEMA, table), self._control.schemas()[f"{table}.v1"]
            with self._database.transaction():
                examination = examine(self._database, document.label, name, document)
                options = {"adopt": False, "wants_snapshot": False}
                self._replicas[table] = claim(self._database, examination, self._pipeline.name, "copying", **options)
        return self._replicas[table]

    def _changes(self, label: str) -> list[Change]:
        """The newest whole state of each row since the table was emptied."""
        key, newest = self._pipeline.keys.stream("all", 1), dict[bytes, Change | None]()
        before = "+"
        while entries := cast(list[Any], self._pipeline.redis.xrevrange(key, before, count=500)):
            for entry_id, fields in entries:
                before = f"({entry_id.decode()}"
                if fields.get(b"type") != label.encode():
                    continue
                if fields[b"op"] == b"truncate":
                    return [change for change in newest.values() if change is not None]
                usual = fields[b"op"] == b"upsert" and not {b"partial", b"quoted"} & fields.keys()
                change = Change(entry_id, fields[b"key"], fields.get(b"state")) if usual else None
                newest.setdefault(fields[b"key"], change)
        return [change for change in newest.values() if change is not None]
