"""The demo's shop: its rows, and what its configuration file says of the copies."""

from __future__ import annotations

import base64
import random
import tomllib
from dataclasses import dataclass, replace
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


MASK_KEY = "a key of this demo alone"
"""What the addresses are hashed with."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica table, and what it is a copy of."""

    sink: str
    event: str
    replica_table: str
    source_table: str
    columns: tuple[str, ...]
    """The replica's."""
    rows: str = ""
    """The SELECT that gives just these at the source, where they are not simply the table's."""
    key: tuple[str, ...] = ()
    """Those of `columns` that name a row; as it stands, the source table's primary key."""


def events() -> list[str]:
    """The events of the configuration; each has a stream of its own name."""
    return list(tomllib.loads(CONFIG)["events"])


def copies() -> list[Copy]:
    """Every replica table of the configuration."""
    found: list[Copy] = []
    document = tomllib.loads(CONFIG)
    for sink, section in document["sinks"].items():
        for event, target in section["tables"].items():
            mapped = document["events"][event]
            if event in _SHAPED:
                found += (replace(copy, sink=sink, event=event) for copy in _SHAPED[event])
            else:
                found.append(Copy(sink, event, target, mapped["table"], tuple(mapped["columns"])))
    return found


def _hashed(column: str) -> str:
    """HMAC-SHA-256 (RFC 2104) in SQL: what a mask makes of a column's text."""
    inner, outer = (bytes(byte ^ pad for byte in MASK_KEY.encode().ljust(64, b"\0")).hex() for pad in (0x36, 0x5C))
    digest = f"sha256('\\x{outer}' || sha256('\\x{inner}' || convert_to({column}, 'UTF8')))"
    return f"'k1:' || encode({digest}, 'hex')"


_PARCELS = "orders AS o WHERE o.status IN ('packed', 'shipped')"
_SHAPED = {
    "customer_contact": [
        Copy(
            "",
            "",
            "ledger.debtors",
            "public.customers",
            ("id", "full_name", "email", "rev"),
            f"SELECT id, name AS full_name, {_hashed('email')} AS email, rev FROM customers",
            ("id",),
        ),
    ],
    "parcel": [
        Copy(
            "",
            "",
            "depot.parcels",
            "public.orders",
            ("id", "status", "placed_at", "note", "recipient"),
            "SELECT id, status, placed_at, note, (SELECT jsonb_build_object('name', name, 'phone', phone)"
            f" FROM customers WHERE customers.id = o.customer_id) AS recipient FROM {_PARCELS}",
            ("id",),
        ),
        Copy(
            "",
            "",
            "depot.parcel_lines",
            "public.order_lines",
            ("parcel_id", "line_no", "sku", "quantity", "price"),
            "SELECT order_id AS parcel_id, line_no, sku, quantity, price FROM order_lines"
            f" WHERE order_id IN (SELECT id FROM {_PARCELS})",
            ("parcel_id", "line_no"),
        ),
    ],
}
"""What is told of the copies that are not rows of one table as they stand."""
