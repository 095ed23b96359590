"""What a replica refuses is parked alone, in the transaction that goes on without it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sinks.applying import Applying
from sinks.errors import TooManyParked
from sinks.session import Session
from tests.integration.sink_harness import Pipeline, command, customer, delete, upsert, use_technique


@pytest.fixture(params=["json", "copy"], autouse=True)
def technique(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    use_technique(request.param, monkeypatch)


@pytest.fixture(params=["first batch", "later batch"], autouse=True)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a session's batches: a later one takes the checkpoint and begins to write in one go."""
    apply = Applying.apply

    def later(self: Applying, session: Session, *arguments: Any) -> int:
        session.may_have_parked = self._checkpoints.parked() > 0
        return apply(self, session, *arguments)

    if request.param == "later batch":
        monkeypatch.setattr(Applying, "apply", later)


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        assert made.apply() == 0
        made.execute("ALTER TABLE replica.customers ADD CONSTRAINT short CHECK (length(name) < 10)")
        yield made


PARKED = "SELECT convert_from(key, 'UTF8'), op, sqlstate, message FROM cdc.dead_event ORDER BY id"
POISON = "far too long a name: canary"


def test_a_poison_row_is_parked_alone(pipeline: Pipeline) -> None:
    pipeline.transaction(*(customer(id_, POISON if id_ in (40, 41) else "fine") for id_ in range(100)))
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT count(*) FROM replica.customers WHERE name = 'fine'") == [(98,)]
    message = "CheckViolation (SQLSTATE 23514) at table customers, constraint short"
    assert pipeline.rows(PARKED) == [(f'{{"id":{id_}}}', "upsert", "23514", message) for id_ in (40, 41)]
    assert pipeline.status()["dead"] == 2
    assert pipeline.apply() == 0, "nothing was parked on the way of this run"


@pytest.mark.parametrize(
    "state",
    [
        b'{"id":"x canary","name":"a"}',
        b'{"id":1,"name":',
        b'{"id":1,"name":"a\0b"}',
        b"\xff\xfe",
        b'{"id":1,"name":"\\u0000"}',
    ],
    ids=["another type", "cut off", "a NUL byte", "not UTF-8", "an escaped NUL"],
)
def test_a_state_that_no_column_takes_is_parked_without_a_word_of_it(pipeline: Pipeline, state: bytes) -> None:
    pipeline.transaction(customer(5, "a"), upsert({"id": 1}, state), customer(6, "b"))
    assert pipeline.apply() == 1
    assert pipeline.customers() == {5: "a", 6: "b"}
    [(parked, message)] = pipeline.rows("SELECT state, message FROM cdc.dead_event")
    assert parked == state
    assert "canary" not in message


def test_a_division_by_zero_is_the_rows_and_no_checkpoint_that_has_moved(pipeline: Pipeline) -> None:
    pipeline.execute("ALTER TABLE replica.customers ADD CHECK (1 / length(name) >= 0)")
    pipeline.transaction(customer(1, "fine"), customer(2, ""), customer(3, "fine"))
    assert pipeline.apply() == 1
    assert pipeline.customers() == {1: "fine", 3: "fine"}
    assert [row[2] for row in pipeline.rows(PARKED)] == ["22012"]


def test_a_checkpoint_that_has_moved_is_no_event_that_is_refused(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    apply, moved = Applying.apply, iter([True])

    def apply_moved(self: Applying, session: Session, *arguments: Any) -> int:
        if next(moved, False):
            pipeline.execute("UPDATE cdc.checkpoint SET lease_until = '-infinity', owner = 'another'")
        return apply(self, session, *arguments)

    monkeypatch.setattr(Applying, "apply", apply_moved)
    pipeline.transaction(customer(1, "a"))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "a"}
    assert "refused" not in caplog.text
    assert pipeline.rows(PARKED) == []


def test_a_later_full_state_heals(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "fine"), customer(2, POISON), customer(3, POISON), customer(4, POISON))
    assert pipeline.apply() == 1
    pipeline.transaction(customer(2, "short"), delete({"id": 3}))
    assert pipeline.apply() == 0
    assert pipeline.customers() == {1: "fine", 2: "short"}
    assert [row[0] for row in pipeline.rows(PARKED)] == ['{"id":4}']


def test_a_later_poison_takes_the_place_of_the_earlier_one(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, POISON))
    assert pipeline.apply() == 1
    pipeline.transaction(customer(1, POISON + " again"))
    assert pipeline.apply() == 1
    [(state,)] = pipeline.rows("SELECT convert_from(state, 'UTF8') FROM cdc.dead_event")
    assert "again" in state


def test_a_partial_event_behind_a_parked_one_is_parked_too(pipeline: Pipeline) -> None:
    pipeline.transaction(customer(1, "old"), customer(2, "old"))
    assert pipeline.apply() == 0
    pipeline.transaction(customer(1, POISON), upsert({"id": 1}, {"id": 1}, b"partial", b'["name"]'))
    assert pipeline.apply() == 1
    pipeline.transaction(upsert({"id": 1}, {"id": 1}, b"partial", b'["name"]'))
    assert pipeline.apply() == 1
    assert [row[3].split(" ")[0] for row in pipeline.rows(PARKED)] == [
        "CheckViolation",
        "EarlierEventParked",
        "EarlierEventParked",
    ]
    assert pipeline.customers() == {1: "old", 2: "old"}


def test_deferred_constraints_find_the_row_too(pipeline: Pipeline) -> None:
    pipeline.execute(
        "CREATE TABLE replica.allowed (id integer PRIMARY KEY); INSERT INTO replica.allowed VALUES (1), (3)"
    )
    pipeline.execute(
        "ALTER TABLE replica.customers ADD FOREIGN KEY (id) REFERENCES replica.allowed DEFERRABLE INITIALLY DEFERRED"
    )
    pipeline.transaction(customer(1, "a"), customer(2, "b"), customer(3, "c"))
    assert pipeline.apply() == 1
    assert pipeline.customers() == {1: "a", 3: "c"}


def test_many_refused_rows_stop_the_worker_and_nothing_is_skipped(pipeline: Pipeline) -> None:
    pipeline.transaction(*(customer(id_, POISON) for id_ in range(150)))
    with pytest.raises(TooManyParked):
        pipeline.apply()
    assert pipeline.rows("SELECT count(*) FROM cdc.dead_event") == [(0,)]
    pipeline.execute("ALTER TABLE replica.customers DROP CONSTRAINT short")
    assert pipeline.apply() == 0
    assert len(pipeline.customers()) == 150


def test_many_refused_rows_among_good_ones_do_not(pipeline: Pipeline) -> None:
    pipeline.transaction(*(customer(id_, POISON if id_ % 2 else "fine") for id_ in range(240)))
    assert pipeline.apply() == 1
    assert pipeline.rows("SELECT count(*) FROM cdc.dead_event") == [(120,)]


def test_parked_events_are_listed_shown_retried_and_dropped(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    pipeline.transaction(customer(1, POISON), customer(2, POISON), customer(3, "fine"))
    assert pipeline.apply() == 1
    code, listed, _ = command(config, "dead", "list")
    assert (code, listed.count("CheckViolation"), POISON in listed) == (0, 2, False)
    events = json.loads(command(config, "dead", "list", "--json")[1])
    one, two = (event["id"] for event in events)
    assert POISON in json.loads(command(config, "dead", "show", str(one))[1])["state"]

    code, out, _ = command(config, "dead", "retry", str(one))
    assert (code, "refused again" in out) == (1, True)
    pipeline.execute("ALTER TABLE replica.customers DROP CONSTRAINT short")
    assert command(config, "dead", "retry", str(one))[:2] == (0, f"{one}: applied\n")
    assert pipeline.customers() == {1: POISON, 3: "fine"}
    code, _, err = command(config, "dead", "retry", str(one))
    assert (code, "not parked" in err) == (3, True)

    assert command(config, "dead", "drop", str(two))[0] == 2
    assert command(config, "dead", "drop", str(two), "--yes")[:2] == (0, "forgotten: 1\n")
    assert command(config, "dead", "list")[1] == "nothing is parked\n"


def test_a_partial_event_is_retried_behind_what_came_before_it(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    pipeline.transaction(customer(1, POISON), upsert({"id": 1}, {"id": 1, "name": "b"}, b"partial", b'["id"]'))
    assert pipeline.apply() == 1
    first, second = (row[0] for row in pipeline.rows("SELECT id FROM cdc.dead_event ORDER BY id"))
    code, _, err = command(config, "dead", "retry", str(second))
    assert (code, f"retry {first}" in err) == (3, True)
    pipeline.execute("ALTER TABLE replica.customers DROP CONSTRAINT short")
    assert command(config, "dead", "retry", str(second), str(first))[0] == 0
    assert pipeline.customers() == {1: "b"}


def test_what_is_to_be_retried_first_can_be_run_as_it_is_printed(pipeline: Pipeline, tmp_path: Path) -> None:
    config = pipeline.config_file(tmp_path)
    pipeline.transaction(customer(1, POISON))
    for name in "bc":
        pipeline.transaction(upsert({"id": 1}, {"id": 1, "name": name}, b"partial", b'["id"]'))
        assert pipeline.apply() == 1
    pipeline.execute("ALTER TABLE replica.customers DROP CONSTRAINT short")
    *_, last = (row[0] for row in pipeline.rows("SELECT id FROM cdc.dead_event ORDER BY id"))
    _, _, err = command(config, "dead", "retry", str(last))
    told = re.search(r"`cdc-sink dead billing retry (.*)`", " ".join(err.split()))
    assert told is not None
    assert command(config, "dead", "retry", *told[1].split())[0] == 0
    assert command(config, "dead", "retry", str(last))[0] == 0
    assert pipeline.customers() == {1: "c"}
