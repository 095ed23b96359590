"""What `cdc init` proposes: which tables become events, with which columns, and why the others do not.

Whether a table can be mapped is decided by `map_event`, as for `cdc check` and `cdc run`, so that all three agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby

from pydantic import ValidationError

from cdc.catalog import IdentityMissing, KeyUnfit, Table, TableUnfit
from cdc.config import EventConfig
from cdc.event_mapping import EventMapping, map_event
from cdc.init.cautions import Caution, cautions_about
from cdc.init.errors import NoSuchTable
from cdc.init.event_names import event_names
from cdc.init.facts import TableFacts, listable
from cdc.init.mending import cause, mending
from cdc.init.personal import personal_columns
from transforms.names import TableName

_OWN_TABLES = {TableName("cdc", name) for name in ("checkpoint", "replica", "dead_event", "rebuild")}

_PROVIDERS_SCHEMAS = frozenset(
    {"auth", "storage", "realtime", "vault", "pgsodium", "supabase_functions", "supabase_migrations", "net"}
)
"""What the services of a Supabase project keep for themselves, and change when they like."""

_WHERE_IT_WOULD_STAND = re.compile(r"^events\.\w+\.\w+: ")


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """A table that can be mapped as it is."""

    event: EventConfig
    mapping: EventMapping
    facts: TableFacts
    personal: tuple[str, ...]
    """Columns that are left out since they look personal."""
    cautions: tuple[Caution, ...]


@dataclass(frozen=True, slots=True)
class Unfit:
    """A table that cannot be mapped as it is."""

    facts: TableFacts
    estimated_rows: int
    reason: str
    sql: str | None
    """What the owner would run so that it can be mapped; None where no statement alone would do."""
    advice: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Tables that are of no kind to be mapped."""

    reason: str
    tables: tuple[TableName, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All of the proposal, in the order of the file."""

    pipeline: str
    events: tuple[PlannedEvent, ...]
    unfit: tuple[Unfit, ...]
    skipped: tuple[Skipped, ...]


def choose(tables: Sequence[TableFacts], globs: Sequence[str]) -> list[TableFacts]:
    """The tables that the globs match on `schema.name` or `name`; all where there are none. Raises NoSuchTable."""
    for glob in globs:
        if not any(_matches(table.name, glob) for table in tables):
            raise NoSuchTable(
                f"no table matches {glob!r} (views and foreign tables have no log,"
                " and partitions are covered by their root)"
            )
    return [table for table in tables if not globs or any(_matches(table.name, glob) for glob in globs)]


def _matches(name: TableName, glob: str) -> bool:
    return fnmatchcase(name.name, glob) or fnmatchcase(f"{name.schema}.{name.name}", glob)


def skip(tables: Sequence[TableFacts], *, supabase: bool) -> tuple[list[TableFacts], tuple[Skipped, ...]]:
    """Part the tables that may be mapped from those that are of no kind to be."""
    reasons = {table.name: _reason_to_skip(table, supabase=supabase) for table in tables}
    skipped = sorted((reason, name) for name, reason in reasons.items() if reason)
    by_reason = [
        Skipped(reason, tuple(name for _, name in group)) for reason, group in groupby(skipped, lambda pair: pair[0])
    ]
    return [table for table in tables if not reasons[table.name]], tuple(by_reason)


def _reason_to_skip(table: TableFacts, *, supabase: bool) -> str:
    if table.persistence == "t":
        return "temporary: their changes are not in the log"
    if table.extension is not None:
        return f"of the extension {table.extension}"
    if table.name in _OWN_TABLES:
        return "statecast's own books about the replicas in this database"
    if supabase and table.name.schema in _PROVIDERS_SCHEMAS:
        return "Supabase's own"
    if table.persistence == "u":
        return "unlogged: their changes are not in the log"
    return ""


def make_plan(
    pipeline: str,
    candidates: Sequence[TableFacts],
    tables: Mapping[TableName, Table],
    skipped: tuple[Skipped, ...],
    server_version: int,
) -> Plan:
    """Judge each candidate: those most written to first, then the largest."""
    events, unfit = [], []
    names = event_names([table.name for table in candidates])
    for facts in sorted(candidates, key=lambda facts: (-facts.writes, -facts.size_bytes, str(facts.name))):
        table = tables.get(facts.name)
        if table is None:  # dropped in the meantime
            continue
        try:
            event, mapping = _mapped(names[facts.name], table)
        except TableUnfit as error:
            reason = _WHERE_IT_WOULD_STAND.sub("", str(error)).removeprefix(f"{facts.name} ")
            if isinstance(error, IdentityMissing) and (why := cause(facts, table)):
                reason += f" ({why})"
            unfit.append(Unfit(facts, table.estimated_rows, reason, mending(facts, table), error.remedy))
        else:
            personal = personal_columns(table.name.name, listable(table), mapping.key)
            kept = tuple(name for name in event.columns if name not in personal)
            event = event.model_copy(update={"columns": kept})
            mapping = map_event(event, table)
            events.append(PlannedEvent(event, mapping, facts, personal, cautions_about(facts, mapping, server_version)))
    return Plan(pipeline, tuple(events), tuple(unfit), skipped)


def _mapped(name: str, table: Table) -> tuple[EventConfig, EventMapping]:
    """An event with every column that is in the log, by the first key that will do. Raises TableUnfit."""
    columns = listable(table)
    refusal: TableUnfit | None = None
    for key in _keys(table):
        try:
            event = EventConfig(name=name, table=table.name, columns=columns, key=key)
            return event, map_event(event, table)
        except ValidationError:  # no columns at all, or a key that cannot be listed
            refusal = refusal or KeyUnfit(
                f"{table.name} has no key among the columns that can be listed",
                remedy="Give it a unique key of columns that are NOT NULL and not generated.",
            )
        except TableUnfit as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _keys(table: Table) -> list[tuple[str, ...] | None]:
    """The primary key, which need not be named; then the identity, and any other unique columns in it."""
    others = sorted(table.unique_keys, key=lambda key: (key != table.identity_columns, len(key), sorted(key)))
    named = [tuple(column.name for column in table.columns if column.name in key) for key in others]
    return [None, *(key for key in named if set(key) != set(table.primary_key))]
