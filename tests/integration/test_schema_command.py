"""`cdc schema`: what consumers get to know of events, with and without the source, before and after the first start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from tests.contracts import imported
from tests.integration.test_roles import PASSWORD
from tests.processes import Pipeline, closing
from tests.readme import redis_users

EVENTS = """
[events.customer]
table = "public.customers"
columns = ["id", "name"]
[events.order_second]
type = "order"
version = 2
table = "public.orders"
columns = ["id", "total", "placed"]
"""


@pytest.fixture
def shop(source_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with psycopg.connect(source_dsn, autocommit=True) as source:
        source.execute("CREATE TABLE customers (id bigint PRIMARY KEY, name text, secret text)")
        source.execute(
            "CREATE TABLE orders (id uuid PRIMARY KEY, total numeric(9,2) NOT NULL, placed timestamptz NOT NULL)"
        )
        source.execute("INSERT INTO customers VALUES (1, 'Ada', 'x')")
        source.execute("INSERT INTO orders VALUES (gen_random_uuid(), 9.5, now())")
    with closing(Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, EVENTS)) as made:
        yield made


def schema(shop: Pipeline, *arguments: str) -> Any:
    return json.loads(shop.run("cdc.cli", "schema", *arguments))


def test_what_was_never_published_is_told_as_it_would_be_and_then_as_it_is(shop: Pipeline) -> None:
    planned = shop.run("cdc.cli", "schema")
    assert list(json.loads(planned)["$defs"]) == ["customer.v1", "order.v2"]
    assert shop.redis.keys(f"{shop.name}:*") == []  # nothing was made by asking
    shop.run("cdc.cli", "run", "--once")
    assert shop.run("cdc.cli", "schema") == planned
    stored = shop.redis.hget(shop.keys.schema, "order.v2")
    assert schema(shop, "order_second") == json.loads(stored)["json_schema"]  # type: ignore[arg-type]
    for name in ("order", "order.v2"):
        assert schema(shop, name)["title"] == "order.v2"
    told = shop.run("cdc.cli", "schema", "nothing", expect=2)
    assert "there is no event nothing (there are: customer.v1, order.v2)" in told


def test_a_consuming_team_needs_redis_alone(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    whole = shop.run("cdc.cli", "schema", "--format", "python")
    shop.path.write_text(f'[pipeline]\nname = "{shop.name}"\n[transport]\nurl = "${{REDIS_URL}}"\n')
    del shop.environment["SOURCE_DSN"]
    user = "cdc_billing"  # a sink's user may ask
    rules = [rule.replace("~shop:", f"~{shop.name}:") for rule in redis_users(PASSWORD)[user]]
    cast(Any, shop.redis).execute_command("ACL", "SETUSER", user, "reset", *rules)
    shop.environment["REDIS_URL"] = shop.redis_url.replace("redis://", f"redis://{user}:{PASSWORD}@")
    assert shop.run("cdc.cli", "schema", "--format", "python") == whole
    entries: Any = shop.redis.xrange(shop.keys.stream("order", 1))
    [text] = [fields[b"state"] for _, fields in entries if fields[b"op"] == b"upsert"]
    state = imported(whole).OrderV2.model_validate_json(text)
    assert (str(state.total), state.placed.tzname()) == ("9.50", "UTC")
    shop.redis.delete(shop.keys.schema)
    told = shop.run("cdc.cli", "schema", expect=3)
    assert "has published no event" in told
    assert "remedy: Correct pipeline.name and transport.url" in told


def test_a_change_that_is_planned_can_be_looked_at_without_redis(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.path.write_text(shop.path.read_text().replace('["id", "name"]', '["id", "name", "secret"]'))
    assert list(schema(shop, "customer")["properties"]) == ["id", "name"]
    shop.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    assert list(schema(shop, "customer", "--planned")["properties"]) == ["id", "name", "secret"]
    told = shop.run("cdc.cli", "schema", "customer", expect=4)
    assert "remedy: " in told
