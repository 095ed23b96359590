"""The demo's shop: its rows, and what its configuration file says of the copies."""

from __future__ import annotations

import base64
import random
import tomllib
from dataclasses import dataclass
from importlib import resources

import psycopg

CONFIG = resources.files("cdc.demo").joinpath("shop.toml").read_text(encoding="utf-8")
_TABLES = resources.files("cdc.demo").joinpath("shop.sql").read_text(encoding="utf-8")
_PRODUCTS = 2_000

RESERVED_CUSTOMERS = 100
"""Customers up to this id are left alone by the load: the probes have them to themselves."""


def create(dsn: str) -> None:
    """Make the tables and fill them. The statistics tell the reader how many rows there are about."""
    chance = random.Random(1)
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLES.encode())
        with cursor.copy("COPY products (name, price, description) FROM STDIN") as copy:
            for number in range(_PRODUCTS):
                copy.write_row((f"Product {number}", chance.randrange(100, 90_000) / 100, description(chance)))
        cursor.execute("ANALYZE customers, products, orders, order_lines")


def description(chance: random.Random) -> str:
    """A text of 5 to 20 kB that does not compress, so that Postgres keeps it apart from its row (TOAST)."""
    return base64.b64encode(chance.randbytes(chance.randrange(3_800, 15_000))).decode()


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica table, and what it is a copy of."""

    sink: str
    event: str
    replica_table: str
    source_table: str
    columns: tuple[str, ...]


def events() -> list[str]:
    """The events of the configuration; each has a stream of its own name."""
    return list(tomllib.loads(CONFIG)["events"])


def copies() -> list[Copy]:
    """Every replica table of the configuration."""
    document = tomllib.loads(CONFIG)
    return [
        Copy(sink, event, table, document["events"][event]["table"], tuple(document["events"][event]["columns"]))
        for sink, section in document["sinks"].items()
        for event, table in section["tables"].items()
    ]
