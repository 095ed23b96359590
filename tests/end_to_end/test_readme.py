"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cdc import cli as reader_cli
from cdc.config import load_reader_config
from sinks import cli as sink_cli
from sinks.config import load_sink_config
from tests.processes import Pipeline, closing
from tests.readme import README, block, named_commands

CONFIGURATION = """
[events.customer]
table = "customers"
columns = ["id", "name", "email"]
"""
# What `redis-cli --raw` does with a command, for machines that have none: each value of the reply on a line.
REDIS_CLI = f"""#!{sys.executable}
import sys, redis
def flat(reply):
    if isinstance(reply, (list, tuple)):
        return [value for part in reply for value in flat(part)]
    return [] if reply is None else [reply.decode() if isinstance(reply, bytes) else str(reply)]
assert sys.argv[1] == "-u" and sys.argv[3] == "--raw"
with redis.Redis.from_url(sys.argv[2]) as client:
    connection = client.connection_pool.get_connection()
    connection.send_command(*sys.argv[4:])
    print("\\n".join(flat(connection.read_response())))
"""


@pytest.fixture
def shop(source_dsn: str, redis_url: str, tmp_path: Path) -> Iterator[Pipeline]:
    """The README's pipeline, after a run."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, email text)")
        connection.execute("INSERT INTO customers VALUES (1, 'Ada', 'ada@example.com')")
    with closing(Pipeline("shop", source_dsn, redis_url, tmp_path, CONFIGURATION)) as made:
        made.run("cdc.cli", "run", "--once")
        yield made


@pytest.fixture
def redis_cli(tmp_path: Path) -> str:
    """A PATH on which there is a redis-cli."""
    if shutil.which("redis-cli"):
        return os.environ["PATH"]
    program = tmp_path / "bin" / "redis-cli"
    program.parent.mkdir()
    program.write_text(REDIS_CLI)
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def test_the_consumer_in_plain_shell_prints_each_change(shop: Pipeline, redis_cli: str) -> None:
    script = "\n".join(block("sh", "last=0-0"))
    environment = os.environ | {"PATH": redis_cli, "REDIS_URL": shop.environment["REDIS_URL"]}
    printed = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert printed.stderr == ""
    row = ["upsert", '{"id":1}', '{"id":1,"name":"Ada","email":"ada@example.com"}']
    lines = printed.stdout.splitlines()
    assert row in [lines[at : at + 3] for at in range(len(lines))]


def test_what_the_tour_shows_is_what_its_configuration_makes_of_the_rows(
    source_dsn: str, redis_url: str, tmp_path: Path, redis_cli: str
) -> None:
    with psycopg.connect(source_dsn) as connection:
        customer = "id int PRIMARY KEY, name text, email text, active bool, region text"
        connection.execute(f"CREATE TABLE customers ({customer})".encode())
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, status text)")
        connection.execute("CREATE TABLE products (id int PRIMARY KEY, title text, price numeric)")
        lines = "order_id int, line_no int, quantity int, product_id int, PRIMARY KEY (order_id, line_no)"
        connection.execute(f"CREATE TABLE order_lines ({lines})".encode())
        row = "'Ada', 'ada@example.com', true"
        connection.execute(f"INSERT INTO customers VALUES (1, {row}, 'eu'), (2, {row}, 'uk')".encode())
        connection.execute("INSERT INTO orders VALUES (7, 'paid')")
        connection.execute("INSERT INTO products VALUES (1, 'Pear', 1.20)")
        connection.execute("INSERT INTO order_lines VALUES (7, 1, 2, 1)")
    mapping, key = "\n".join(block("toml", "[masking]")), {"MASK_KEY": "a key of these pages"}
    printed: list[str] = []
    with closing(Pipeline("shop", source_dsn, redis_url, tmp_path, mapping, key)) as shop:
        shop.run("cdc.cli", "run", "--once")
        for event in ("customer", "order"):
            script = "\n".join(block("sh", "last=0-0")).replace("shop:customer", f"shop:{event}")
            environment = os.environ | {"PATH": redis_cli, "REDIS_URL": shop.environment["REDIS_URL"]}
            done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=120)
            assert done.stderr == ""
            lines_printed = done.stdout.splitlines()
            assert lines_printed.count("upsert") == 1
            at = lines_printed.index("upsert")
            printed += lines_printed[at : at + 3]
    shown = re.escape("\n".join(block("text", "upsert"))).replace("…", "[0-9a-f]{60}")
    assert re.fullmatch(shown, "\n".join(printed))


def test_the_part_of_a_table_is_published_again(shop: Pipeline) -> None:
    [words] = [words for words in named_commands() if "--where" in words and len(words) > 4]
    assert "asked for customer.v1 where " in shop.run("cdc.cli", *words[1:])
    shop.run("cdc.cli", "run", "--once")
    [run] = json.loads(shop.run("cdc.cli", "status", "--json"))["snapshots"]
    assert (run["state"], run["rows"]) == ("done", 1)


def test_the_event_that_is_shown_is_one(shop: Pipeline) -> None:
    shown = dict(line.split(maxsplit=1) for line in block("text", "id     2"))
    found: Any = shop.redis.xrange(shop.keys.stream("customer", 1))
    entries = [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in found]
    actual = next(entry for entry in entries if entry["op"] == "upsert")
    assert [name for name in shown if name != "id"] == [name for name in actual if name in shown]
    assert {name: shown[name] for name in ("type", "key", "state")} == {
        name: actual[name] for name in ("type", "key", "state")
    }


def test_the_configuration_is_one(tmp_path: Path) -> None:
    path = tmp_path / "cdc.toml"
    path.write_text("\n".join(block("toml", "[pipeline]")))
    environ = {"SOURCE_DSN": "host=a", "REDIS_URL": "redis://b", "BILLING_DSN": "host=c"}
    assert load_reader_config(path, environ).events[0].label == "customer.v1"
    assert list(load_sink_config(path, environ, "billing").tables) == ["customer.v1"]


@pytest.mark.parametrize("words", named_commands(), ids=" ".join)
def test_every_command_that_is_named_exists(words: list[str]) -> None:
    program, *arguments = words
    if arguments in (["..."], ["dead", "NAME"]):
        return
    if program == "cdc-sink" and len(arguments) == 1 and arguments[0] in ("run", "check", "tables"):
        arguments.append("NAME")
    if program == "cdc-sink" and arguments[0] == "dead" and len(arguments) == 3 and arguments[2] == "retry":
        arguments.append("ID")
    if arguments == ["forget"]:
        arguments.append("NAME")
    arguments = ["9000" if word == "PORT" else word for word in arguments]
    parser = (sink_cli if program == "cdc-sink" else reader_cli)._parser()
    if arguments == ["--version"]:
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args(arguments)
        return
    assert callable(parser.parse_args(arguments).command)


def test_every_make_target_exists() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
