"""The shop's order as one event: its lines, the product in each, its customer; writers, and what they must come to.

Each writer owns the rows of one residue class, so a row's `rev` rises with every change of it, also when it is deleted
and inserted again.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import psycopg

from tests.processes import Pipeline, wait_until

SCHEMA = """
CREATE SEQUENCE revs;
CREATE TABLE customers (id bigint PRIMARY KEY, rev bigint NOT NULL, name text, secret text DEFAULT 'PLANTED SECRET');
CREATE TABLE products (id bigint PRIMARY KEY, rev bigint NOT NULL, title text, price numeric(10, 2));
CREATE TABLE orders (id bigint PRIMARY KEY, rev bigint NOT NULL, customer_id bigint, status text, note jsonb);
CREATE TABLE order_lines (order_id bigint, line_no int, rev bigint NOT NULL, product_id bigint, quantity int,
                          PRIMARY KEY (order_id, line_no));
CREATE INDEX ON orders (customer_id);
CREATE INDEX ON order_lines (product_id);
CREATE TABLE pings (id int PRIMARY KEY, number bigint NOT NULL);
INSERT INTO pings VALUES (1, 0);
"""
EVENTS = """
[events.order]
table = "orders"
columns = ["id", "rev", "status", "note"]
[events.order.embed.lines]
table = "order_lines"
on = { order_id = "id" }
columns = ["line_no", "rev", "quantity"]
[events.order.embed.lines.embed.product]
table = "products"
on = { id = "product_id" }
columns = ["id", "rev", "title", "price"]
many = false
[events.order.embed.customer]
table = "customers"
on = { id = "customer_id" }
columns = ["id", "rev", "name"]
many = false
[events.ping]
table = "pings"
columns = ["id", "number"]
"""
SINKS = """
[sinks.whole]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.whole.tables]
order = "replica.orders"
[sinks.parts]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.parts.tables]
order = { table = "parts.orders", embeds = { lines = "parts.order_lines", customer = "parts.order_customers" } }
"""
FIELDS = "'id', o.id, 'rev', o.rev, 'status', o.status, 'note', o.note"
AT_SOURCE = f"""
    SELECT jsonb_build_object({FIELDS},
        'lines', (SELECT coalesce(jsonb_agg(jsonb_build_object('line_no', l.line_no, 'rev', l.rev,
            'quantity', l.quantity, 'product',
                (SELECT jsonb_build_object('id', p.id, 'rev', p.rev, 'title', p.title, 'price', p.price::text)
                        FROM products p WHERE p.id = l.product_id)) ORDER BY l.order_id, l.line_no), '[]')
            FROM order_lines l WHERE l.order_id = o.id),
        'customer', (SELECT jsonb_build_object('id', c.id, 'rev', c.rev, 'name', c.name)
                     FROM customers c WHERE c.id = o.customer_id))
    FROM orders o ORDER BY o.id
"""
IN_WHOLE = f"""
    SELECT jsonb_build_object({FIELDS}, 'lines', o.lines, 'customer', o.customer) FROM replica.orders o ORDER BY o.id
"""
IN_PARTS = f"""
    SELECT jsonb_build_object({FIELDS},
        'lines', (SELECT coalesce(jsonb_agg(jsonb_build_object('line_no', l.line_no, 'rev', l.rev,
            'quantity', l.quantity, 'product', l.product) ORDER BY l.line_no), '[]')
            FROM parts.order_lines l WHERE l.order_id = o.id),
        'customer', (SELECT jsonb_build_object('id', c.id, 'rev', c.rev, 'name', c.name)
                     FROM parts.order_customers c WHERE c.order_id = o.id))
    FROM parts.orders o ORDER BY o.id
"""

WRITERS: Final = 4
HUGE: Final = 4
"""The customer with the most orders; the first writer's."""


def seed(dsn: str, orders: int, of_the_huge_one: int) -> None:
    """Make the tables, with so many orders, some of which are one customer's."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SCHEMA.encode())
        for statement in (
            "INSERT INTO customers SELECT i, nextval('revs'), 'customer ' || i FROM generate_series(1, 200) i",
            "INSERT INTO products SELECT i, nextval('revs'), 'product ' || i, i / 7.0 FROM generate_series(1, 300) i",
            f"INSERT INTO orders SELECT i, nextval('revs'), CASE WHEN i <= {of_the_huge_one} THEN {HUGE}"
            f" ELSE 1 + i % 200 END, 'new', CASE WHEN i % 3 = 0 THEN '{{\"n\": [1, null]}}'::jsonb END"
            f" FROM generate_series(1, {orders}) i",
            "INSERT INTO order_lines SELECT o, n, nextval('revs'), 1 + (o * 7 + n) % 300, n"
            f" FROM generate_series(1, {orders}) o, generate_series(1, 2) n",
            "VACUUM ANALYZE",
        ):
            connection.execute(statement.encode())


class Load:
    """Writers that change all four tables at random."""

    def __init__(self, dsn: str, seed: int, orders: int) -> None:
        """`orders`: how many of the first ones are changed."""
        self._dsn = dsn
        self._seed = seed
        self._orders = orders
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self.transactions = 0

    @contextmanager
    def running(self) -> Iterator[Load]:
        """Write while the block runs."""
        threads = [threading.Thread(target=self._guarded, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._failures:
            raise self._failures[0]

    def _guarded(self, number: int) -> None:
        try:
            with psycopg.connect(self._dsn) as connection:
                writer = _Writer(connection, random.Random(f"{self._seed}/{number}"), number, self._orders)
                while not self._stop.wait(writer.chance.expovariate(60)):
                    writer.transact()
                    self.transactions += 1
        except BaseException as error:
            self._failures.append(error)


class _Writer:
    def __init__(self, connection: psycopg.Connection, chance: random.Random, number: int, orders: int) -> None:
        self.chance = chance
        self._connection = connection
        self._number = number
        self._orders = orders

    def transact(self) -> None:
        try:
            for _ in range(self.chance.choice((1, 1, 2, 4))):
                self.chance.choice(_ACTIONS)(self)
            if self.chance.random() < 0.9:
                self._connection.commit()
                return
        except (psycopg.errors.UniqueViolation, psycopg.errors.DeadlockDetected):
            pass
        self._connection.rollback()

    def _own(self, most: int) -> int:
        """A key of this writer's."""
        return self._number + WRITERS * self.chance.randrange(1, most // WRITERS)

    def _order(self) -> int:
        return self._own(self._orders)

    def _do(self, statement: str, *parameters: object) -> None:
        self._connection.execute(statement.encode(), parameters)

    def update_order(self) -> None:
        self._do("UPDATE orders SET rev = nextval('revs'), status = status || '.' WHERE id = %s", self._order())

    def give_order(self) -> None:
        customer = self.chance.choice((None, self.chance.randrange(1, 230)))
        self._do("UPDATE orders SET rev = nextval('revs'), customer_id = %s WHERE id = %s", customer, self._order())

    def place_order(self) -> None:
        order = self._order()
        self._do(
            "INSERT INTO orders VALUES (%s, nextval('revs'), %s, 'placed') ON CONFLICT DO NOTHING",
            order, self.chance.randrange(1, 230),
        )  # fmt: skip
        self._add_line(order)

    def renumber_order(self) -> None:
        old, new = self._order(), self._order()
        self._do("UPDATE orders SET rev = nextval('revs'), id = %s WHERE id = %s", new, old)
        if self.chance.random() < 0.5:
            self._do("DELETE FROM order_lines WHERE order_id = %s", new)
            self._do("UPDATE order_lines SET rev = nextval('revs'), order_id = %s WHERE order_id = %s", new, old)

    def delete_order(self) -> None:
        order = self._order()
        self._do("DELETE FROM orders WHERE id = %s", order)
        if self.chance.random() < 0.7:
            self._do("DELETE FROM order_lines WHERE order_id = %s", order)

    def add_line(self) -> None:
        self._add_line(self._order())

    def _add_line(self, order: int) -> None:
        self._do(
            "INSERT INTO order_lines VALUES (%s, %s, nextval('revs'), %s, 1) ON CONFLICT DO NOTHING",
            order, self.chance.randrange(1, 6), self.chance.choice((None, self.chance.randrange(1, 330))),
        )  # fmt: skip

    def change_lines(self) -> None:
        self._do(
            "UPDATE order_lines SET rev = nextval('revs'), quantity = quantity + 1 WHERE order_id = %s", self._order()
        )

    def move_line(self) -> None:
        self._do(
            "UPDATE order_lines SET rev = nextval('revs'), order_id = %s, line_no = %s"
            " WHERE order_id = %s AND line_no = %s",
            self._order(), self.chance.randrange(6, 12), self._order(), self.chance.randrange(1, 4),
        )  # fmt: skip

    def swap_product(self) -> None:
        self._do(
            "UPDATE order_lines SET rev = nextval('revs'), product_id = %s WHERE order_id = %s AND line_no = 1",
            self.chance.randrange(1, 330), self._order(),
        )  # fmt: skip

    def delete_line(self) -> None:
        self._do("DELETE FROM order_lines WHERE order_id = %s AND line_no > 2", self._order())

    def rename_customer(self) -> None:
        self._do("UPDATE customers SET rev = nextval('revs'), name = name || '.' WHERE id = %s", self._own(230))

    def rename_huge_customer(self) -> None:
        if self._number == 0 and self.chance.random() < 0.3:
            self._do("UPDATE customers SET rev = nextval('revs'), name = name || '!' WHERE id = %s", HUGE)

    def come_and_go(self) -> None:
        table, columns = self.chance.choice((("customers", "'back'"), ("products", "'back', 1.50")))
        key = self._own(230 if table == "customers" else 330)
        self._do(f"DELETE FROM {table} WHERE id = %s", key)
        if self.chance.random() < 0.7:
            self._do(f"INSERT INTO {table} VALUES (%s, nextval('revs'), {columns})", key)

    def renumber_customer(self) -> None:
        self._do(
            "UPDATE customers SET rev = nextval('revs'), id = %s WHERE id = %s AND id <> %s",
            self._own(230), self._own(230), HUGE,
        )  # fmt: skip

    def reprice(self) -> None:
        self._do("UPDATE products SET rev = nextval('revs'), price = price + 0.01 WHERE id = %s", self._own(330))


_ACTIONS: tuple[Callable[[_Writer], None], ...] = (
    _Writer.update_order,
    _Writer.give_order,
    _Writer.place_order,
    _Writer.renumber_order,
    _Writer.delete_order,
    _Writer.add_line,
    _Writer.change_lines,
    _Writer.move_line,
    _Writer.swap_product,
    _Writer.delete_line,
    _Writer.rename_customer,
    _Writer.rename_huge_customer,
    _Writer.come_and_go,
    _Writer.renumber_customer,
    _Writer.reprice,
)


def documents(dsn: str, statement: str) -> list[Any]:
    """The orders that a statement gives."""
    with psycopg.connect(dsn) as connection:
        return [document for (document,) in connection.execute(statement.encode()).fetchall()]


def newest(shop: Pipeline) -> list[Any]:
    """The orders as the stream has them."""
    states: dict[bytes, Any] = {}
    for _, fields in cast(list[Any], shop.redis.xrange(shop.keys.stream("order", 1))):
        if fields[b"op"] == b"upsert":
            states[fields[b"key"]] = json.loads(fields[b"state"])
        elif fields[b"op"] == b"delete":
            states.pop(fields[b"key"], None)
    return sorted(states.values(), key=lambda order: int(order["id"]))


def wait_settled(shop: Pipeline) -> None:
    """Wait until all that is committed now is in the streams, fan-outs as well."""
    shop.wait_published(240)
    wait_until("the fan-outs", shop.snapshots_done, 240)


def assert_replicas_equal_source(shop: Pipeline, *sinks: str) -> None:
    """The replicas of these sinks hold what SQL computes at the source."""
    wait_settled(shop)
    wanted, target = documents(shop.source_dsn, AT_SOURCE), shop.environment["TARGET_DSN"]
    for sink in sinks:
        statement = {"whole": IN_WHOLE, "parts": IN_PARTS}[sink]
        shop.wait_applied(target, sink, 240)
        found = documents(target, statement)
        differing = [(one, other) for one, other in zip(wanted, found, strict=False) if one != other]
        assert not differing, (sink, len(differing), differing[:2])
        assert len(found) == len(wanted), (sink, len(found), len(wanted))


def assert_nothing_went_back(shop: Pipeline) -> int:
    """No entry of an order tells an older state of any row in it than one before it; returns how many there are."""
    revs: dict[tuple[object, ...], int] = {}
    entries = 0
    for key in sorted(shop.redis.scan_iter(f"{shop.name}:order*", _type="STREAM")):
        for entry_id, fields in cast(list[Any], shop.redis.xrange(key)):
            if fields.get(b"op") != b"upsert":
                continue
            entries += 1
            for row, rev in _revs(json.loads(fields[b"state"])):
                assert revs.setdefault(row, rev) <= rev, (entry_id, row, revs[row], rev)
                revs[row] = rev
    return entries


def _revs(order: dict[str, Any]) -> Iterator[tuple[tuple[object, ...], int]]:
    """The `rev` of each row in an order, by the order and the row."""
    own = order["id"]
    yield (own,), order["rev"]
    if order["customer"] is not None:
        yield (own, "customer", order["customer"]["id"]), order["customer"]["rev"]
    for line in order["lines"]:
        yield (own, "line", line["line_no"]), line["rev"]
        if line["product"] is not None:
            yield (own, "product", line["product"]["id"]), line["product"]["rev"]
