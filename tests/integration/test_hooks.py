"""A function of the operator's, and old states: as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from tests.processes import Pipeline, closing, wait_until
from transforms.failpoints import ALLOWED_BY, ARMED_BY, Failpoint

CONFIGURATION = """
[events.order]
table = "orders"
columns = ["id", "status", "note", "total"]
rename = { note = "remark" }
previous = true
transform = "shop_hooks:order"
[events.plain]
table = "orders"
columns = ["id", "status"]
[sinks.copy]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.copy.tables]
order = "replica.orders"
"""
HOOK = """
from typing import Any

def order(state: dict[str, Any]) -> dict[str, Any] | None:
    if state["status"] == "draft":
        return None
    rates = {"paid": 1, "open": 2}
    rates[state["status"]]
    state["remark"] = state["remark"].upper()
    return state
"""
MENDED = HOOK.replace('rates[state["status"]]', 'rates.get(state["status"])')
FAILING_LINE = 8
PLANTED = "PLANTED"


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn) as connection:
        connection.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, status text NOT NULL, note text, total numeric);"
            "ALTER TABLE orders REPLICA IDENTITY FULL;"
            f"INSERT INTO orders VALUES (1, 'paid', 'a', 1.10), (2, '{PLANTED}', 'b', 2), (3, 'draft', 'c', 3)"
        )
    (tmp_path / "shop_hooks.py").write_text(HOOK)
    environment = {"TARGET_DSN": target_dsn}
    made = Pipeline(
        pipeline_name, source_dsn, redis_url, tmp_path, CONFIGURATION, environment, working_directory=tmp_path
    )
    with closing(made):
        yield made


def execute(shop: Pipeline, *statements: str) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def entries(shop: Pipeline, stream: str = "order") -> list[dict[str, Any]]:
    """Operation, key, state and previous of each entry but marks, and its origin."""
    found = []
    for _, fields in cast(Any, shop.redis.xrange(shop.keys.stream(stream, 1))):
        if fields[b"op"] != b"mark":
            told = {name.decode(): value.decode() for name, value in fields.items()}
            shown = {name: json.loads(told[name]) for name in ("key", "state", "previous") if name in told}
            found.append({"op": told["op"], "origin": told.get("origin"), **shown})
    return found


def replica(shop: Pipeline) -> list[tuple[Any, ...]]:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as connection:
        return connection.execute("SELECT id, status, remark, total::text FROM replica.orders ORDER BY id").fetchall()


def parked(shop: Pipeline) -> dict[int, str]:
    """The rows that `cdc status` says are parked, by id: the error, and the line."""
    (event,) = status(shop)["parked"] or [{"rows": []}]
    return {row["key"]["id"]: f"{row['error']} {row['line']}" for row in event["rows"]}


def status(shop: Pipeline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shop.run("cdc.cli", "status", "--json"))
    return found


@pytest.mark.any_version
@pytest.mark.timeout(240)
def test_rows_that_a_hook_fails_on_are_parked_where_a_person_sees_them_until_they_are_published(shop: Pipeline) -> None:
    where = f"KeyError {shop.directory}/shop_hooks.py:{FAILING_LINE}"
    told = shop.run("cdc.cli", "check", expect=1)
    assert "shop_hooks:order raised KeyError in" in told
    assert PLANTED not in told

    reader, target = shop.reader(), shop.environment["TARGET_DSN"]
    shop.sink("copy")
    shop.wait_published()
    execute(
        shop,
        "INSERT INTO orders VALUES (4, 'open', 'd', 4), (5, 'paid', 'e', 5), (6, 'draft', 'f', 6)",
        f"UPDATE orders SET status = '{PLANTED} 2' WHERE id = 4",
        "UPDATE orders SET status = 'draft' WHERE id = 5",
        "UPDATE orders SET id = 7, note = 'g' WHERE id = 1",
        "DELETE FROM orders WHERE id = 3",
    )
    shop.wait_published()
    shop.wait_applied(target, "copy")
    assert replica(shop) == [(4, "open", "D", "4"), (7, "paid", "G", "1.10")]
    assert parked(shop) == {2: where, 4: where}
    text = " ".join(shop.run("cdc.cli", "status").split())
    assert 'order.v1 {"id":4}, changed at' in text
    assert "2 rows are not published: the event's transform raised KeyError in" in text
    assert "cdc snapshot order.v1" in text
    assert all(PLANTED not in each for each in (text, reader.output, json.dumps(status(shop))))
    assert "its transform raised KeyError in" in reader.output
    assert '"id"' not in reader.output
    assert len(entries(shop, "plain")) > 8, "the other event of the table has stopped too"

    # It dies with what it has appended, before anything of it is stored.
    reader.terminate()
    reader.environment = {**reader.environment, ARMED_BY: f"{Failpoint.BATCH_APPENDED}:kill@1", ALLOWED_BY: "1"}
    reader.start()
    execute(
        shop,
        f"UPDATE orders SET status = '{PLANTED} 3' WHERE id = 7; INSERT INTO orders VALUES (8, 'open', 'h', 8)",
    )
    assert reader.wait() == -9
    reader.environment = {name: value for name, value in reader.environment.items() if name != ARMED_BY}
    reader.start()
    shop.wait_published()
    wait_until("the row to be parked", lambda: parked(shop) == {2: where, 4: where, 7: where})
    execute(shop, "DELETE FROM orders WHERE id = 4")
    shop.wait_published()
    assert parked(shop) == {2: where, 7: where}

    (shop.directory / "shop_hooks.py").write_text(MENDED)
    reader.terminate()
    reader.start()
    shop.run("cdc.cli", "snapshot", "order", "--wait")
    shop.wait_published()
    shop.wait_applied(target, "copy")
    assert parked(shop) == {}
    assert [(row[0], row[2]) for row in replica(shop)] == [(2, "B"), (7, "G"), (8, "H")]
    assert "shop_hooks:order was tried on" in shop.run("cdc.cli", "check")


@pytest.mark.timeout(120)
def test_entries_carry_the_old_state_where_the_log_tells_it(shop: Pipeline) -> None:
    (shop.directory / "shop_hooks.py").write_text(MENDED)
    shop.run("cdc.cli", "run", "--once")
    before = len(entries(shop))
    execute(
        shop,
        "UPDATE orders SET status = 'open' WHERE id = 1",
        "UPDATE orders SET id = 9 WHERE id = 1",
        "UPDATE orders SET status = 'open' WHERE id = 3",
        "UPDATE orders SET status = 'draft' WHERE id = 9",
        "DELETE FROM orders WHERE id = 3",
    )
    shop.run("cdc.cli", "run", "--once")
    found = entries(shop)
    assert all("previous" not in entry for entry in found[:before])

    def state(id: int, status: str, remark: str, total: str) -> dict[str, Any]:
        return {"id": id, "status": status, "remark": remark, "total": total}

    assert [(entry["op"], entry["key"]["id"], entry.get("previous")) for entry in found[before:]] == [
        ("upsert", 1, state(1, "paid", "A", "1.10")),
        ("delete", 1, state(1, "open", "A", "1.10")),
        ("upsert", 9, state(1, "open", "A", "1.10")),
        ("upsert", 3, None),  # it was not of the event before
        ("delete", 9, state(9, "open", "A", "1.10")),
        ("delete", 3, state(3, "open", "C", "3")),
    ]


def test_what_the_table_does_not_give_is_refused_with_what_mends_it(shop: Pipeline) -> None:
    reader = shop.reader()
    shop.wait_published()
    execute(shop, "ALTER TABLE orders REPLICA IDENTITY DEFAULT")
    assert reader.wait() == 3
    assert "events.order.previous: the replica identity of public.orders is not FULL" in reader.output
    assert "ALTER TABLE public.orders REPLICA IDENTITY FULL;" in reader.output
    assert "events.order.previous: the replica identity of" in shop.run("cdc.cli", "check", expect=1)
    shop.path.write_text(shop.path.read_text().replace("shop_hooks:order", "no_such_module:order"))
    told = shop.run("cdc.cli", "run", expect=2)
    assert "events.order.transform: no_such_module cannot be imported: ModuleNotFoundError" in told
