"""Every row that a changed related row belongs to is read now, waits for its turn, or is a fan-out's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from cdc.config import EventConfig
from cdc.related.affected import MOST_PARENTS, find
from cdc.related.configuration import EmbedConfig
from cdc.related.mapping import map_whole
from cdc.snapshot.subject import Subject
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from transforms.address import Address
from transforms.masking import Masks
from transforms.names import TableName
from transforms.secret import Secret

PRODUCTS = [40, *[130] * 20, MOST_PARENTS, MOST_PARENTS + 1, 0]
"""How many lines each has."""
ORDERS, LINES = TableName("public", "items"), TableName("public", "products")


@pytest.fixture
def source(source_dsn: str) -> Iterator[Source]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE products (id int PRIMARY KEY)")
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, product_id int)")
        connection.execute("INSERT INTO products SELECT generate_series(0, %s)", [len(PRODUCTS) - 1])
        for product, items in enumerate(PRODUCTS):
            connection.execute(
                "INSERT INTO items SELECT %s * 10000 + i, %s FROM generate_series(1, %s) i", [product, product, items]
            )
    with closing(Source(Address("source", Secret(source_dsn)), "test")) as made:
        yield made


def keys_of(*products: int) -> set[bytes]:
    return {b'{"id":%d}' % (product * 10000 + i) for product in products for i in range(1, PRODUCTS[product] + 1)}


@pytest.mark.parametrize("room", [1, 500, MOST_PARENTS - 1, MOST_PARENTS, MOST_PARENTS + 1, 2_000, 10_000])
@pytest.mark.parametrize(
    "changed", [range(1), range(8), range(21), range(20, 24), range(len(PRODUCTS))], ids=lambda some: f"{some}"
)
def test_no_row_is_left_out_however_many_are_read_at_once(source: Source, changed: range, room: int) -> None:
    embed = EmbedConfig(name="product", table=LINES, on={"id": "product_id"}, columns=("id",), many=False)
    event = EventConfig(name="item", table=ORDERS, columns=("id",), embeds=(embed,))
    subject = Subject.of(map_whole(event, describe_tables(source, [ORDERS, LINES])), 1, str.encode, Masks())
    waiting, read, fanned_out = {b'{"id":%d}' % product for product in changed}, set[bytes](), set[int]()
    while waiting:
        found = find(source, subject, {"product": waiting}, room)
        left = found.left.get("product", set())
        assert len(found.keys) <= MOST_PARENTS
        assert left < waiting, "something is done in each round"
        read |= found.keys
        fanned_out |= {json.loads(value)["id"] for value in found.fan_outs.get("product", set())}
        waiting = set(left)
    assert fanned_out == {product for product in changed if PRODUCTS[product] > MOST_PARENTS}
    assert read == keys_of(*(product for product in changed if product not in fanned_out))
