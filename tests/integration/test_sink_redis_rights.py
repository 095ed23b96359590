"""What the sink's Redis user may do: each right of the README is needed, and `cdc-sink check` tells when it is gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis

from cdc.demo.servers import ValkeyServer
from sinks.redis_rights import ON_ANY_KEY, Rights, rights
from tests.integration.test_roles import PASSWORD
from tests.readme import redis_users
from transforms.address import Address
from transforms.keys import Keys
from transforms.secret import Secret

USER = "cdc_billing"
KEYS = Keys("shop")
GRANTED = redis_users(PASSWORD)[USER]
RULES = [rule for rule in GRANTED if rule.startswith("+")]
OWN = [rule for rule in GRANTED if rule.startswith("(")]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@pytest.fixture
def administrator(server: ValkeyServer) -> Iterator[redis.Redis]:
    """Somebody who may all, beside the README's sink."""
    with redis.Redis.from_url(server.url(), decode_responses=True) as client:
        client.flushall()
        set_user(client, "reset", *GRANTED)
        yield client


def set_user(administrator: redis.Redis, *rules: str) -> None:
    cast(Any, administrator).execute_command("ACL", "SETUSER", USER, *rules)


def mend(administrator: redis.Redis, found: Rights) -> None:
    """Run what it prints, as a shell passes it on."""
    for finding in found.findings:
        words = (finding.remedy or "").removeprefix(f"ACL SETUSER {USER} ")
        set_user(administrator, *([words.strip("'")] if "'" in words else words.split()))


def look(server: ValkeyServer) -> Rights:
    url = server.url().replace("redis://", f"redis://{USER}:{PASSWORD}@")
    return rights(Address("transport", Secret(url)), KEYS, "billing")


def test_the_readmes_rights_are_those_that_are_tested() -> None:
    assert {f"+{name.partition('|')[0]}" for name, *_ in ON_ANY_KEY} == set(RULES)
    assert OWN == ["(+xadd ~shop:requests)", "(+set ~shop:status:sink:billing)"]


@pytest.mark.parametrize("there", [False, True])
def test_with_all_rights_it_says_so_and_changes_nothing(
    server: ValkeyServer, administrator: redis.Redis, there: bool
) -> None:
    if there:
        administrator.set(KEYS.sink_status("billing"), "told")
        administrator.xadd(KEYS.requests, {"events": "[]"}, id="5-0")
    before = {key: administrator.type(key) for key in administrator.scan_iter()}
    found = look(server)
    assert [(finding.verdict, finding.what) for finding in found.findings] == [
        ("ok", f"{USER} may run all that a sink needs")
    ]
    assert found.may_go_on
    assert {key: administrator.type(key) for key in administrator.scan_iter()} == before
    if there:
        assert administrator.get(KEYS.sink_status("billing")) == "told"
        assert administrator.xlen(KEYS.requests) == 1


@pytest.mark.parametrize("rule", RULES)
def test_a_right_that_is_taken_away_is_told_with_what_gives_it_back(
    server: ValkeyServer, administrator: redis.Redis, rule: str
) -> None:
    set_user(administrator, f"-{rule[1:]}")
    found = look(server)
    (finding,) = found.findings
    assert (finding.verdict, finding.thing) == ("error", "Redis user")
    assert finding.what.startswith(f"{USER} may not run {rule[1:]}")
    mend(administrator, found)
    assert [each.verdict for each in look(server).findings] == ["ok"]


@pytest.mark.parametrize("rule", OWN)
def test_a_key_that_it_may_not_write_is_told_too(server: ValkeyServer, administrator: redis.Redis, rule: str) -> None:
    set_user(administrator, "reset", *(kept for kept in GRANTED if kept != rule))
    found = look(server)
    command, key = rule.strip("(+)").split(" ~")
    assert [finding.what for finding in found.findings] == [f"{USER} may not run {command} on {key}"]
    assert found.may_go_on
    mend(administrator, found)
    assert [each.verdict for each in look(server).findings] == ["ok"]


def test_all_that_is_missing_is_told_at_once(server: ValkeyServer, administrator: redis.Redis) -> None:
    set_user(administrator, "-xread", "-hkeys", "resetkeys", "~other:*")
    found = look(server)
    assert [finding.what for finding in found.findings] == [
        f"{USER} may not run hkeys, xread",
        f"{USER} may not use the keys shop:*",
    ]
    assert not found.may_go_on
    mend(administrator, found)
    assert [each.verdict for each in look(server).findings] == ["ok"]
