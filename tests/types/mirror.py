"""Source, pipeline and replica, kept running while batches of values are sent through: what these tests are made of.

Values are text literals that the source's own input functions read. They travel on every way a value can take: as an
INSERT, as an UPDATE, as an UPDATE of a table with REPLICA IDENTITY FULL, and in a snapshot. What arrives is brought
back into the source and compared there, by text form and, where the type has equality, by IS NOT DISTINCT FROM.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import uuid4

import psycopg
from psycopg import sql

from cdc.control import Control
from cdc.source.connection import SETTINGS
from tests import contracts, servers
from tests.processes import Command, Pipeline, closing, wait_until
from tests.types.copying import Copying

PATHS = ("inserted", "updated", "updated_full")
SINK = "copy"

Literal = str | None
"""A value as Postgres' input function reads it; None is NULL."""
Batch = Mapping[str, Sequence[Literal]]
"""Column -> values; the columns' values stand side by side in rows, shorter ones followed by NULL."""


class Group(NamedTuple):
    """Columns that stand in one table: name -> type as SQL names it."""

    name: str
    columns: Mapping[str, str]


class Difference(NamedTuple):
    """A value that did not come out as it went in."""

    path: str
    column: str
    type: str
    given: Literal
    arrived: Literal
    """None also when the whole row is missing."""

    def __str__(self) -> str:
        return f"{self.path}: {self.type} {self.given!r} arrived as {self.arrived!r}"


def assert_same(differences: Sequence[Difference]) -> None:
    """Fail with every value that differs."""
    shown = "\n".join(sorted({str(one)[:2000] for one in differences})[:50])
    assert not differences, f"{len(differences)} values differ:\n{shown}"


def connect(dsn: str) -> psycopg.Connection[Any]:
    """A session in which each value's text form is exact, and as the reader sees it."""
    options = " ".join(f"-c {name}={value}" for name, value in (SETTINGS | {"search_path": "public"}).items())
    return psycopg.connect(dsn, autocommit=True, options=options, client_encoding="UTF8")


class Oracle:
    """What a source database says of types and literals."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._equality: dict[str, bool] = {}

    def accepts(self, type_: str, literals: Sequence[Literal]) -> list[Literal]:
        """Those of the literals that are values of the type."""
        if not literals:
            return []
        try:
            rows = self._connection.execute(
                "SELECT v FROM unnest(%s::text[]) WITH ORDINALITY AS t (v, place)"
                " WHERE v IS NULL OR pg_input_is_valid(v, %s) ORDER BY place",
                (list(literals), type_),
            ).fetchall()
        except psycopg.Error:  # an input function that cannot but raise
            if len(literals) == 1:
                return []
            middle = len(literals) // 2
            return self.accepts(type_, literals[:middle]) + self.accepts(type_, literals[middle:])
        return [row[0] for row in rows]

    def has_equality(self, type_: str, literal: str) -> bool:
        """Whether IS NOT DISTINCT FROM can be asked of this type."""
        if type_.removesuffix("[]") in ("box", "circle", "line"):
            return False  # theirs is arithmetic: it overflows, and may find a value unequal to itself
        if type_ not in self._equality:
            value = sql.SQL("{}::{}").format(sql.Literal(literal), sql.SQL(cast(Any, type_)))
            try:
                self._connection.execute(sql.SQL("SELECT {} IS NOT DISTINCT FROM {}").format(value, value))
                self._equality[type_] = True
            except (psycopg.errors.UndefinedFunction, psycopg.errors.AmbiguousFunction):
                self._equality[type_] = False
        return self._equality[type_]


class Mirror:
    """The running pipeline, and what is sent through it."""

    def __init__(
        self,
        source: psycopg.Connection[Any],
        target: psycopg.Connection[Any],
        pipeline: Pipeline,
        groups: Sequence[Group],
    ) -> None:
        self.groups = {group.name: group for group in groups}
        self.source = source
        self.target = target
        self.oracle = Oracle(self.source)
        self._fences = itertools.count(1)
        self._equality: dict[tuple[str, str], bool] = {}
        self.pipeline = pipeline
        self.control = Control(self.pipeline.redis, self.pipeline.keys)
        self._copying = Copying(self.pipeline.environment["TARGET_DSN"], target, self.pipeline)
        self._commands: list[Command] = []
        self._checked = "0-0"

    def start(self, setup: str) -> None:
        """Make the tables, start reader and sink, and wait until they work."""
        self._make_tables(setup)
        self._commands = [self.pipeline.reader(), self.pipeline.sink(SINK)]
        self._wait("the first snapshots", self.pipeline.snapshots_done)
        self.settle()

    def close(self) -> None:
        """End the connection that writes by COPY."""
        self._copying.close()

    # --- sending -----------------------------------------------------------------------------------------------------

    def carry(self, group: str, batch: Batch, *, snapshot: bool = True) -> list[Difference]:
        """Send values on every way; returns what did not come out as it went in. All must be valid."""
        self._give(group, batch)
        columns = sql.SQL(", ").join(map(sql.Identifier, self.groups[group].columns))
        given, rows = sql.Identifier(f"{group}_given"), max(map(len, batch.values()))
        for path in PATHS:
            table = sql.Identifier(f"{group}_{path}")
            self.source.execute(sql.SQL("TRUNCATE {}").format(table))
            if path == "inserted":
                self.source.execute(sql.SQL("INSERT INTO {} SELECT * FROM {}").format(table, given))
                continue
            self.source.execute(  # first each row with the values of its neighbour
                sql.SQL("INSERT INTO {} SELECT (id + 1) % {}, {} FROM {}").format(table, rows, columns, given)
            )
            self.source.execute(
                sql.SQL("UPDATE {} AS t SET ({}) = (SELECT {} FROM {} AS g WHERE g.id = t.id)").format(
                    table, columns, columns, given
                )
            )
        self.settle()
        self._expect_as_promised(f"{group}_inserted.v1")
        found = [one for path in PATHS for one in self.differences(group, path)]
        if snapshot:
            self.target.execute(sql.SQL("DELETE FROM replica.{}").format(sql.Identifier(f"{group}_inserted")))
            self.snapshot(f"{group}_inserted")
            found += self.differences(group, "inserted", path="snapshot")
        return found

    def _expect_as_promised(self, event: str) -> None:
        """Every entry of an event since this was asked last must be as its schema document promises."""
        redis, keys = self.pipeline.redis, self.pipeline.keys
        found = cast(list[Any], redis.xrange(keys.stream("all", 1), f"({self._checked}"))
        entries = [fields for _, fields in found if fields.get(b"type") == event.encode()]
        assert entries
        contracts.expect_as_promised(cast(dict[bytes, bytes], redis.hgetall(keys.schema)), entries)
        self._checked = found[-1][0].decode()

    def _give(self, group: str, batch: Batch) -> None:
        names = list(batch)
        self.source.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(f"{group}_given")))
        copy = sql.SQL("COPY {} (id, {}) FROM STDIN").format(
            sql.Identifier(f"{group}_given"), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with self.source.cursor().copy(copy) as rows:
            for number, values in enumerate(itertools.zip_longest(*batch.values())):
                rows.write_row((number, *values))

    def snapshot(self, *events: str) -> None:
        """Have events published again, and wait until the replica has them."""
        asked = self.control.request_snapshot([f"{event}.v1" for event in events], None)

        def done() -> bool:
            done = [run for run in self.control.runs() if run.state == "done"]
            return all(any(run.serves(each) for run in done) for each in asked)

        self._wait(f"the snapshot of {', '.join(events)}", done)
        self.settle()

    def settle(self) -> None:
        """Wait until the replica has all that is committed now: one stream keeps all tables' common order.

        Rows that are read again come behind what was committed after them, and hold `published` back until then.
        """
        number, position = next(self._fences), self.pipeline.flush_position()
        self.source.execute("INSERT INTO fence VALUES (1, %s) ON CONFLICT (id) DO UPDATE SET n = excluded.n", [number])

        def passed() -> bool:
            there = self.target.execute("SELECT to_regclass('replica.fence') IS NOT NULL").fetchone() == (True,)
            return there and self.target.execute("SELECT n FROM replica.fence").fetchone() == (number,)

        self._wait(f"fence {number} in the replica", passed)
        self._wait(f"{position} to be published", lambda: self.pipeline.published >= position)
        self.pipeline.wait_applied(self.pipeline.environment["TARGET_DSN"], SINK)

    def _wait(self, what: str, condition: Any) -> None:
        def over() -> bool:
            for command in self._commands:
                assert command.running, f"{command.arguments[2]} ended:\n{command.output[-3000:]}"
            return bool(condition())

        wait_until(what, over)

    # --- comparing ---------------------------------------------------------------------------------------------------

    def differences(self, group: str, table: str, *, path: str | None = None) -> list[Difference]:
        """What differs between the values given and a replica table."""
        assert self.parked() == [], "the sink parked rows"
        assert self._copying.differences(f"{group}_{table}") == []
        self._bring_back(group, table)
        columns = self.groups[group].columns
        compared = [
            sql.SQL("({number}, g.{name}::text, a.{name}::text, {same})").format(
                number=sql.Literal(number), name=sql.Identifier(name), same=self._same(group, name, type_)
            )
            for number, (name, type_) in enumerate(columns.items())
        ]
        statement = sql.SQL(
            "SELECT v.number, v.given, v.arrived FROM {given} AS g FULL JOIN {arrived} AS a USING (id)"
            " CROSS JOIN LATERAL (VALUES {compared}) AS v (number, given, arrived, same)"
            " WHERE v.given IS DISTINCT FROM v.arrived OR NOT v.same OR g.id IS NULL OR a.id IS NULL"
        ).format(
            given=sql.Identifier(f"{group}_given"),
            arrived=sql.Identifier(f"{group}_arrived"),
            compared=sql.SQL(", ").join(compared),
        )
        names = list(columns)
        return [
            Difference(path or table, names[number], columns[names[number]], given, arrived)
            for number, given, arrived in self.source.execute(statement).fetchall()
        ]

    def parked(self) -> list[tuple[Any, ...]]:
        """Events that the replica refused."""
        return self.target.execute("SELECT * FROM cdc.dead_event").fetchall()

    def _same(self, group: str, name: str, type_: str) -> sql.Composable:
        """Whether the two values of a row are equal, as far as their type can tell."""
        if (group, name) not in self._equality:
            sample = self.source.execute(
                sql.SQL("SELECT {name}::text FROM {table} WHERE {name} IS NOT NULL LIMIT 1").format(
                    name=sql.Identifier(name), table=sql.Identifier(f"{group}_given")
                )
            ).fetchone()
            if sample is None:
                return sql.SQL("true")
            self._equality[group, name] = self.oracle.has_equality(type_, sample[0])
        if not self._equality[group, name]:
            return sql.SQL("true")
        return sql.SQL("g.{} IS NOT DISTINCT FROM a.{}").format(sql.Identifier(name), sql.Identifier(name))

    def _bring_back(self, group: str, table: str) -> None:
        arrived = sql.Identifier(f"{group}_arrived")
        columns = sql.SQL(", ").join(map(sql.Identifier, ("id", *self.groups[group].columns)))
        self.source.execute(sql.SQL("TRUNCATE {}").format(arrived))
        leaving = sql.SQL("COPY replica.{} ({}) TO STDOUT").format(sql.Identifier(f"{group}_{table}"), columns)
        entering = sql.SQL("COPY {} ({}) FROM STDIN").format(arrived, columns)
        with self.target.cursor().copy(leaving) as out, self.source.cursor().copy(entering) as into:
            for block in out:
                into.write(block)

    # --- making ------------------------------------------------------------------------------------------------------

    def _make_tables(self, setup: str) -> None:
        self.source.execute(setup.encode())
        self.source.execute("CREATE TABLE public.fence (id int PRIMARY KEY, n int)")
        for group in self.groups.values():
            columns = sql.SQL(", ").join(
                sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(cast(Any, type_)))
                for name, type_ in group.columns.items()
            )
            for suffix in (*PATHS, "given", "arrived"):
                table = sql.Identifier(f"{group.name}_{suffix}")
                self.source.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, {})").format(table, columns))
            full = sql.Identifier(f"{group.name}_updated_full")
            self.source.execute(sql.SQL("ALTER TABLE {} REPLICA IDENTITY FULL").format(full))

    def entries(self) -> list[dict[str, str]]:
        """What is in the stream, marks apart."""
        found = cast(list[Any], self.pipeline.redis.xrange(self.pipeline.keys.stream("all", 1)))
        decoded = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]
        return [fields for fields in decoded if fields["op"] != "mark"]


@contextmanager
def mirror(
    postgres: servers.Postgres,
    redis: servers.Redis,
    directory: Path,
    groups: Sequence[Group],
    setup: str = "",
    more: Mapping[str, str] | None = None,
    target_setup: str = "",
) -> Iterator[Mirror]:
    """A started mirror in databases of its own, gone afterwards.

    `setup` runs in the source, and makes the tables of `more` events if there are any: event -> table.
    """
    with (
        servers.database(postgres, "source") as source_dsn,
        servers.database(postgres, "target") as target_dsn,
        connect(source_dsn) as source,
        connect(target_dsn) as target,
    ):
        name = f"types_{uuid4().hex[:12]}"
        environment = {"TARGET_DSN": target_dsn}
        pipeline = Pipeline(name, source_dsn, redis.url(), directory, configuration(groups, more or {}), environment)
        with closing(pipeline):
            target.execute(target_setup.encode())
            made = Mirror(source, target, pipeline, groups)
            made.start(setup)
            try:
                yield made
            finally:
                made.close()


def configuration(groups: Sequence[Group], more: Mapping[str, str]) -> str:
    """All tables in one stream, and one sink, whose tables have the same names in the schema replica."""
    names = ["fence", *(f"{group.name}_{path}" for group in groups for path in PATHS)]
    tables = {name: name for name in names} | dict(more)
    quoted = {event: json.dumps(table, ensure_ascii=False) for event, table in tables.items()}
    mapped = "".join(
        f'[events.{event}]\ntable = {table}\ncolumns = ["*"]\nstream = "all"\n' for event, table in quoted.items()
    )
    replicas = "".join(
        f"{event} = {table.replace(chr(34), chr(34) + 'replica.', 1)}\n" for event, table in quoted.items()
    )
    return f'{mapped}[sinks.{SINK}]\ntype = "postgres"\ndsn = "${{TARGET_DSN}}"\n[sinks.{SINK}.tables]\n{replicas}'
