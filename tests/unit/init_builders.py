"""Tables as the catalog would tell of them, for the tests of `cdc init`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cdc.catalog import Column, Table
from cdc.init.facts import KeyedBy, TableFacts
from cdc.init.plan import Plan, make_plan
from cdc.server.facts import ServerFacts
from cdc.server.providers import SELF_HOSTED
from transforms.column_type import ColumnType
from transforms.names import TableName

INTEGER = ColumnType("integer", "integer", 23)
TEXT = ColumnType("text", "text", 25)
ORDERS = TableName("public", "orders")


def table(
    name: TableName,
    columns: Sequence[str] = ("id", "note"),
    key: Sequence[str] = ("id",),
    *,
    generated: Sequence[str] = (),
    nullable: Sequence[str] = (),
    types: dict[str, ColumnType] | None = None,
    **other: Any,
) -> Table:
    """A plain table with a primary key over `key`, or none where that is empty."""
    values: dict[str, Any] = {
        "kind": "r",
        "persistence": "p",
        "primary_key": tuple(key),
        "unique_keys": (frozenset(key),) if key else (),
        "identity": "d",
        "identity_columns": frozenset(key),
        "leaves_without_identity": (),
        "estimated_rows": 1000,
    }
    made = tuple(
        Column(column, (types or {}).get(column, TEXT), column in key and column not in nullable, column in generated)
        for column in columns
    )
    return Table(oid=16_400, name=name, columns=made, **(values | other))


def server(**other: Any) -> ServerFacts:
    """A server that is ready for a reader."""
    values: dict[str, Any] = {
        "version": 180_000,
        "database": "shop",
        "role": "reader",
        "provider": SELF_HOSTED,
        "standby": False,
        "wal_level": "logical",
        "max_slot_wal_keep_size": "10GB",
        "max_replication_slots": 10,
        "used_slots": 0,
        "max_wal_senders": 10,
        "used_senders": 0,
        "wal_bytes_per_second": None,
        "free_bytes": None,
        "synchronous_standby_names": "",
        "tls": None,
        "by_socket": True,
        "pooled": False,
        "may_replicate": True,
        "may_create": True,
        "counted_days": 10.0,
    }
    return ServerFacts(**(values | other))


def facts(name: TableName, **other: Any) -> TableFacts:
    """What else is told of a table; nothing of note where it is not named."""
    return TableFacts(name, **other)


def index(name: str, *columns: str) -> KeyedBy:
    """A unique index."""
    return KeyedBy(name, columns)


def plan(*pairs: tuple[TableFacts, Table], version: int = 180_000) -> Plan:
    """What is proposed for these tables."""
    return make_plan("shop", [pair[0] for pair in pairs], {pair[1].name: pair[1] for pair in pairs}, (), version)


def planned(of_table: Table, **of_facts: Any) -> Plan:
    """What is proposed for one table."""
    return plan((facts(of_table.name, **of_facts), of_table))
