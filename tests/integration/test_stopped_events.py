"""A table that changes as its event's consumers could not follow: that event stops alone, is told, and heals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import shops
from tests.faults.shops import execute, wait_until_equal
from tests.processes import Pipeline, wait_until


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    with shops.a_shop(source_dsn, target_dsn, redis_url, pipeline_name, tmp_path) as made:
        yield made


def events(shop: Pipeline, *, expect: int = 0) -> dict[str, dict[str, Any]]:
    status = json.loads(shop.run("cdc.cli", "status", "--json", expect=expect))
    return {event["event"]: event for event in status["events"]}


def stopped(shop: Pipeline) -> list[str]:
    stored = shop.redis.hget(shop.keys.meta, "stopped")
    return list(json.loads(stored or b"{}"))


def replica(shop: Pipeline, query: str) -> object:
    return shops.one(shop.environment["TARGET_DSN"], query)


DROPPED = "ALTER TABLE rows DROP name"
RETYPED = "ALTER TABLE rows ALTER name TYPE varchar(40) USING name || '!'"


@pytest.mark.parametrize(
    ("change", "told", "mended"),
    [
        (DROPPED, "public.rows has no column name", "ALTER TABLE rows ADD name text"),
        pytest.param(
            RETYPED,
            "the type of name was text and is character varying(40)",
            "ALTER TABLE rows ALTER name TYPE text",
            marks=pytest.mark.soak,
        ),
    ],
    ids=["dropped", "retyped"],
)
def test_an_event_whose_column_is_gone_stops_alone_and_is_made_up_for_once_mended(
    shop: Pipeline, change: str, told: str, mended: str
) -> None:
    reader = shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    execute(shop.source_dsn, change, "UPDATE rows SET id = id + 100 WHERE id < 5", "DELETE FROM rows WHERE id = 6")
    execute(shop.source_dsn, "INSERT INTO others VALUES (3)")
    wait_until("the other event", lambda: replica(shop, "SELECT count(*) FROM replica.others") == 3)
    wait_until("the stop to be stored", lambda: stopped(shop) == ["row.v1"])
    assert reader.running
    shown = events(shop)
    assert (shown["row.v1"]["state"], shown["other.v1"]["state"]) == ("stopped", "published")
    assert told in shown["row.v1"]["reason"]
    assert shown["row.v1"]["remedy"]
    text = " ".join(shop.run("cdc.cli", "status").split())
    assert "error event row.v1 is stopped, all others go on: " in text
    assert told in text
    assert "event row.v1: stopped" in text
    assert "is not published any more" not in text + shop.run("sinks.cli", "check", "copy")
    checked = " ".join(shop.run("cdc.cli", "check", expect=1).split())
    assert told in checked
    assert replica(shop, "SELECT count(*) FROM replica.rows") == 20
    assert shops.one(shop.source_dsn, "SELECT count(*) FROM rows") == 19
    position = shop.flush_position()  # which moves on by itself: the sink writes to the same server how far it is
    wait_until("the slot to move on", lambda: shop.published >= position)
    execute(shop.source_dsn, mended)
    wait_until_equal(shop)
    assert reader.running
    assert (stopped(shop), events(shop)["row.v1"]["state"]) == ([], "published")
    assert "made because it was stopped" in " ".join(shop.run("cdc.cli", "status").split())


def test_a_stop_is_remembered_and_ends_with_another_version(shop: Pipeline) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "copy", "--once")
    execute(shop.source_dsn, RETYPED, "INSERT INTO others VALUES (3)")
    since = None
    for _ in range(2):
        printed = shop.run("cdc.cli", "run", "--once", expect=3)
        assert "event row.v1 is stopped: the type of name was text and is character varying(40)" in printed
        found = events(shop)["row.v1"]
        since = since or found["since"]
        assert (found["state"], found["since"]) == ("stopped", since)
    shop.run("sinks.cli", "run", "copy", "--once")
    assert replica(shop, "SELECT count(*) FROM replica.others") == 3
    asked = shop.run("cdc.cli", "snapshot", "row", "--wait", expect=3)
    assert "event row.v1 is stopped" in asked
    assert "remedy: Raise the event's `version`" in asked
    shop.path.write_text(shop.path.read_text().replace("[events.row]", "[events.row]\nversion = 2", 1))
    shop.run("cdc.cli", "run", "--once")
    assert stopped(shop) == []
    entries: Any = shop.redis.xrange(shop.keys.stream("row", 1))
    states = [json.loads(fields[b"state"])["name"] for _, fields in entries if fields.get(b"type") == b"row.v2"]
    assert states == ["old!"] * 20


def test_an_event_whose_condition_lost_its_column_stops_alone(shop: Pipeline) -> None:
    execute(shop.source_dsn, "ALTER TABLE rows ADD hidden bool DEFAULT false")
    whole = shop.path.read_text()
    shop.path.write_text(whole.replace("[events.row]", '[events.row]\nwhere = "not hidden"', 1))
    shop.run("cdc.cli", "run", "--once")
    execute(shop.source_dsn, "ALTER TABLE rows DROP hidden", "INSERT INTO others VALUES (3)")
    for _ in range(2):
        printed = shop.run("cdc.cli", "run", "--once", expect=3)
        assert "event row.v1 is stopped: events.row.where: " in printed
        assert "remedy: Give public.rows the column back as it was, or change events.row.where" in printed
    others = shop.redis.xrange(shop.keys.stream("other", 1))
    assert b'{"id":3}' in [fields.get(b"key") for _, fields in others]  # type: ignore[union-attr]
    shop.path.write_text(whole)
    shop.run("cdc.cli", "run", "--once")
    assert stopped(shop) == []
    shop.path.write_text(whole.replace("[events.row]", '[events.row]\nwhere = "not hiden"', 1))
    printed = shop.run("cdc.cli", "run", "--once", expect=3)
    assert "is stopped" not in printed  # that is the configuration's mistake: nothing is begun with it
    assert stopped(shop) == []


@pytest.mark.any_version
def test_a_snapshot_that_was_asked_for_waits_for_the_mended_event(shop: Pipeline) -> None:
    shop.reader()
    shop.sink("copy")
    wait_until_equal(shop)
    execute(shop.source_dsn, DROPPED, "INSERT INTO rows VALUES (50)")
    wait_until("the stop to be stored", lambda: stopped(shop) == ["row.v1"])
    shop.run("cdc.cli", "snapshot", "row", expect=3)
    printed = shop.run("cdc.cli", "snapshot", "--all")
    assert "asked for row.v1, other.v1" in printed
    assert "row.v1 is stopped: its snapshot is made once it is mended" in printed
    execute(shop.source_dsn, "ALTER TABLE rows ADD name text")
    wait_until_equal(shop)
    wait_until("the snapshots", shop.snapshots_done)
