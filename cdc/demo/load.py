"""Live load: a few clients that do to the shop what an application does, at a steady pace."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from cdc.demo.shop import RESERVED_CUSTOMERS, description

CLIENTS = 4
ROWS_PER_SECOND = 1_500
"""Of all clients together: lively, and little enough for a laptop that runs everything else as well."""
_REPRICED_AT_ONCE = 12
_CATCH_UP_SECONDS = 0.5
"""A client that fell further behind than this forgets it, instead of making up for it in a burst."""


class Load:
    """The clients, and what they have done. Start it once, stop it once."""

    def __init__(self, dsn: str, rows_per_second: float = ROWS_PER_SECOND) -> None:
        self._stop = threading.Event()
        self._clients = [_Client(dsn, number, rows_per_second / CLIENTS, self._stop) for number in range(CLIENTS)]

    def start(self) -> None:
        """Let the clients begin."""
        for client in self._clients:
            client.start()

    def stop(self) -> None:
        """End the transactions in hand. Returns when the last one is committed."""
        self._stop.set()
        for client in self._clients:
            if client.is_alive():
                client.join()

    @property
    def running(self) -> bool:
        """Whether it has not been told to stop."""
        return not self._stop.is_set()

    @property
    def rows(self) -> int:
        """How many row changes are committed."""
        return sum(client.rows for client in self._clients)

    @property
    def failure(self) -> Exception | None:
        """What ended a client early."""
        return next((client.failure for client in self._clients if client.failure), None)


class _Client(threading.Thread):
    """One connection. Statements on several rows keep to rows of their own client, so that none waits in a circle."""

    def __init__(self, dsn: str, number: int, rows_per_second: float, stop: threading.Event) -> None:
        super().__init__(name=f"load {number}", daemon=True)
        self.rows = 0
        self.failure: Exception | None = None
        self._dsn = dsn
        self._number = number
        self._seconds_per_row = 1 / rows_per_second
        self._stop_event = stop
        self._chance = random.Random(number)
        operations: list[tuple[Callable[[], int], int]] = [
            (self._place_order, 30),
            (self._move_order_on, 24),
            (self._cancel_order, 6),
            (self._renumber_lines, 3),
            (self._change_prices, 3),
            (self._rewrite_description, 2),
            (self._replace_product, 1),
            (self._sign_up, 5),
            (self._edit_customer, 14),
            (self._renumber_customer, 2),
            (self._delete_customer, 2),
        ]
        self._operations, self._weights = zip(*operations, strict=True)
        self._conn: psycopg.Connection[tuple[Any, ...]]
        self._products: list[str]
        self._newest_order: int
        self._newest_customer: int

    def run(self) -> None:
        try:
            with psycopg.connect(self._dsn, autocommit=True) as self._conn:
                own = "SELECT id::text FROM products WHERE substr(name, 9)::int %% %s = %s"
                self._products = [id_ for (id_,) in self._conn.execute(own, (CLIENTS, self._number))]
                ((self._newest_order, self._newest_customer),) = self._conn.execute(
                    "SELECT (SELECT max(id) FROM orders), (SELECT max(id) FROM customers)"
                )
                self._work()
        except Exception as error:
            self.failure = error

    def _work(self) -> None:
        due = time.monotonic()
        while not self._stop_event.wait(max(0.0, due - time.monotonic())):
            (operation,) = self._chance.choices(self._operations, self._weights)
            with self._conn.transaction():
                changed = operation()
            self.rows += changed
            due = max(due + changed * self._seconds_per_row, time.monotonic() - _CATCH_UP_SECONDS)

    def _do(self, statement: str, *values: object) -> int:
        return self._conn.execute(statement.encode(), values).rowcount

    # --- orders ------------------------------------------------------------------------------------------------------

    def _order(self) -> int:
        """One of the newest orders, or any."""
        first = self._newest_order - 500 if self._chance.random() < 0.5 else 1
        return self._chance.randint(first, self._newest_order)

    def _place_order(self) -> int:
        note = self._chance.choice([None, None, "", "gift wrap, please 🎁", 'tab\there, quote " and back\\slash'])
        row = self._conn.execute(
            "INSERT INTO orders (customer_id, total, note) VALUES (%s, %s, %s) RETURNING id",
            (self._customer(), self._chance.randrange(500, 90_000) / 100, note),
        ).fetchone()
        assert row is not None
        self._newest_order = row[0]
        lines = self._do(
            "INSERT INTO order_lines SELECT %s, line, 'SKU-' || %s + line, 1 + line %% 3, 9.99 * line"
            " FROM generate_series(1, %s) AS line",
            row[0],
            self._chance.randrange(10_000, 90_000),
            self._chance.randint(1, 5),
        )
        return 1 + lines

    def _move_order_on(self) -> int:
        return self._do(
            "UPDATE orders SET status = (enum_range(NULL::order_status))[%s] WHERE id = %s",
            self._chance.randint(2, 5),
            self._order(),
        )

    def _cancel_order(self) -> int:
        order = self._order()
        deleted = self._do("DELETE FROM orders WHERE id = %s", order)  # first: whoever wants the lines waits here
        return deleted + (self._do("DELETE FROM order_lines WHERE order_id = %s", order) if deleted else 0)

    def _renumber_lines(self) -> int:
        """The key of several rows changes."""
        order = self._order()
        if self._conn.execute("SELECT FROM orders WHERE id = %s FOR UPDATE", (order,)).fetchone() is None:
            return 0
        return self._do("UPDATE order_lines SET line_no = line_no + 100 WHERE order_id = %s", order)

    # --- products ----------------------------------------------------------------------------------------------------

    def _change_prices(self) -> int:
        """The large description stays as it is, so the log does not hold it."""
        some = self._chance.sample(self._products, _REPRICED_AT_ONCE)
        return self._do(
            "UPDATE products SET price = price * %s::numeric + 0.01, updated_at = now() WHERE id = ANY(%s::uuid[])",
            self._chance.choice(["0.95", "1.05"]),
            some,
        )

    def _rewrite_description(self) -> int:
        return self._do(
            "UPDATE products SET description = %s, updated_at = now() WHERE id = %s",
            description(self._chance),
            self._chance.choice(self._products),
        )

    def _replace_product(self) -> int:
        """Its key changes, and its large description does not."""
        place = self._chance.randrange(len(self._products))
        row = self._conn.execute(
            "UPDATE products SET id = gen_random_uuid() WHERE id = %s RETURNING id::text", (self._products[place],)
        ).fetchone()
        assert row is not None
        self._products[place] = row[0]
        return 1

    # --- customers ---------------------------------------------------------------------------------------------------

    def _customer(self) -> int:
        return self._chance.randint(RESERVED_CUSTOMERS + 1, self._newest_customer)

    def _sign_up(self) -> int:
        return self._do(
            "INSERT INTO customers (name, email, tags, password_hash) VALUES ('New Friend', %s, '{new}', 'secret')",
            f"friend{self._chance.randrange(10**9)}@example.com",
        )

    def _edit_customer(self) -> int:
        return self._do(
            "UPDATE customers SET phone = %s, rev = rev + 1, tags = (ARRAY[%s] || tags)[:4],"
            " profile = jsonb_set(coalesce(profile, '{}'), '{visits}', to_jsonb(rev)) WHERE id = %s",
            self._chance.choice([None, "+49 30 1234567", "+90 212 555 0199"]),
            self._chance.choice(["vip", "late payer", "NULL", "a,b", "{}"]),
            self._customer(),
        )

    def _renumber_customer(self) -> int:
        """A key changes, and the rows that refer to it with it."""
        old = self._customer()
        row = self._conn.execute(
            "UPDATE customers SET id = nextval(pg_get_serial_sequence('customers', 'id')), rev = rev + 1"
            " WHERE id = %s RETURNING id",
            (old,),
        ).fetchone()
        if row is None:
            return 0
        return 1 + self._do("UPDATE orders SET customer_id = %s WHERE customer_id = %s", row[0], old)

    def _delete_customer(self) -> int:
        return self._do("DELETE FROM customers WHERE id = %s", self._customer())
