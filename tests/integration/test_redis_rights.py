"""What the reader's Redis user may do: each right of the README is needed, and `cdc check` tells when it is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import redis

import cdc
from cdc.check.redis_rights import ALONE, QUEUED, rights_findings
from cdc.demo.servers import ValkeyServer
from cdc.errors import TransportFull
from cdc.transport import connect
from tests.integration.test_roles import PASSWORD
from tests.processes import Pipeline, closing
from tests.readme import README, redis_users
from transforms.address import Address
from transforms.durability import MEMORY, Durability
from transforms.finding import Finding
from transforms.keys import Keys
from transforms.secret import Secret

USER = "cdc_reader"
RULES = [rule for rule in redis_users(PASSWORD)[USER] if rule.startswith("+")]
KEYS = Keys("shop")
SCRIPTS = sorted(Path(cdc.__file__).parent.rglob("*.lua"))
EVENTS = """
[events.customer]
table = "public.customers"
columns = ["id"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@pytest.fixture
def administrator(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Somebody who may all, beside the README's reader with a clean sheet."""
    with redis.Redis.from_url(server.url(), decode_responses=True) as client:
        acl(client, "DELUSER", USER)
        acl(client, "SETUSER", USER, *redis_users(PASSWORD)[USER])
        yield client


def url(server: ValkeyServer) -> str:
    return server.url().replace("redis://", f"redis://{USER}:{PASSWORD}@")


def findings(server: ValkeyServer, durability: Durability = MEMORY) -> list[Finding]:
    with connect(Address("transport", Secret(url(server)))) as client:
        return list(rights_findings(client, KEYS, durability))


def acl(administrator: redis.Redis, *words: str) -> None:
    cast(Any, administrator).execute_command("ACL", *words)


def mend(administrator: redis.Redis, finding: Finding) -> None:
    acl(administrator, *(finding.remedy or "").removeprefix("ACL ").split())


def test_the_readmes_rights_are_those_that_are_tested() -> None:
    tested = {command[0].removesuffix("|stream").removesuffix("|groups") for command in (*ALONE, *QUEUED)}
    assert tested - {"xinfo|consumers"} == {rule.removeprefix("+") for rule in RULES}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_script_runs_is_among_them(script: Path) -> None:
    run = {name.lower() for name in re.findall(r"call\('(\w+)'", script.read_text())}
    assert run
    assert run <= {rule.removeprefix("+").partition("|")[0] for rule in RULES}


def test_with_all_rights_it_says_so_and_changes_nothing(server: ValkeyServer, administrator: redis.Redis) -> None:
    administrator.hset(KEYS.meta, "epoch", "1")
    before = administrator.hgetall(KEYS.meta), administrator.dbsize()
    (finding,) = findings(server)
    assert (finding.verdict, finding.what) == ("ok", f"{USER} may run all that a reader needs")
    assert (administrator.hgetall(KEYS.meta), administrator.dbsize()) == before


@pytest.mark.parametrize("rule", RULES)
def test_a_right_that_is_taken_away_is_told_with_what_gives_it_back(
    server: ValkeyServer, administrator: redis.Redis, rule: str
) -> None:
    acl(administrator, "SETUSER", USER, f"-{rule[1:]}")
    (finding,) = findings(server)
    assert (finding.verdict, finding.thing) == ("error", "transport user")
    assert finding.what.startswith(f"{USER} may not run {rule[1:].replace('|', ' ')}")
    mend(administrator, finding)
    assert [each.verdict for each in findings(server)] == ["ok"]


@pytest.mark.parametrize(("durability", "command"), [("fsync", "waitaof"), ("replicas:1", "wait"), ("memory", None)])
def test_what_the_durability_asks_for_must_be_permitted_too(
    server: ValkeyServer, administrator: redis.Redis, durability: str, command: str | None
) -> None:
    wanted = Durability.parse(durability)
    if command == "waitaof" and str(administrator.info("server")["redis_version"]).startswith("7.0"):
        command = None  # which knows no such command
    (finding,) = findings(server, wanted)
    if command is not None:
        assert (finding.verdict, finding.what) == ("error", f"{USER} may not run {command}")
        assert f"`+{command}`" in README
        mend(administrator, finding)
    (finding,) = findings(server, wanted)
    assert finding.verdict == "ok"


def test_in_a_full_redis_it_is_told_too(server: ValkeyServer, administrator: redis.Redis) -> None:
    acl(administrator, "SETUSER", USER, "-xtrim")
    administrator.config_set("maxmemory", 1)
    try:
        (finding,) = findings(server)
    except TransportFull:  # a full Redis 7.0 begins no transaction
        assert str(administrator.info("server")["redis_version"]).startswith("7.0")
    else:
        assert finding.what == f"{USER} may not run xtrim"
    finally:
        administrator.config_set("maxmemory", 0)


def test_all_that_is_missing_is_told_at_once(server: ValkeyServer, administrator: redis.Redis) -> None:
    acl(administrator, "SETUSER", USER, "-xtrim", "-xpending", "resetkeys", "~other:*")
    commands, keys = findings(server)
    assert commands.what == f"{USER} may not run xtrim, xpending"
    assert keys.what == f"{USER} may not use the keys shop:*"
    for finding in (commands, keys):
        mend(administrator, finding)
    assert [each.verdict for each in findings(server)] == ["ok"]


def test_cdc_check_tells_it(
    server: ValkeyServer, administrator: redis.Redis, source_dsn: str, pipeline_name: str, tmp_path: Path
) -> None:
    acl(administrator, "SETUSER", USER, "-xtrim", "resetkeys", f"~{pipeline_name}:*")
    with closing(Pipeline(pipeline_name, source_dsn, url(server), tmp_path, EVENTS)) as shop:
        told = shop.run("cdc.cli", "check", expect=1)
        assert f"error    transport user: {USER} may not run xtrim\n         ACL SETUSER {USER} +xtrim\n" in told
        acl(administrator, "SETUSER", USER, "+xtrim", "-info")
        told = shop.run("cdc.cli", "check", expect=1)
        assert f"{USER} may not run info" in told
        assert PASSWORD not in told
