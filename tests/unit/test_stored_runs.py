"""Snapshot runs as they are stored: another version, or some other program, may have written them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cdc.snapshot.run import Run

RUN = replace(Run.requested("7-0", "customer.v1", None), state="running", after=("1", "x"), rows=5)


def test_a_run_is_read_as_it_was_stored() -> None:
    assert Run.parse(RUN.to_json()) == RUN


def test_what_a_later_version_has_added_is_left_aside() -> None:
    assert Run.parse(json.dumps(json.loads(RUN.to_json()) | {"priority": {"of": 1}})) == RUN


def test_what_an_earlier_version_did_not_know_has_its_default() -> None:
    stored = json.loads(RUN.to_json())
    del stored["reason"], stored["where"], stored["scanned"]
    assert Run.parse(json.dumps(stored)) == RUN


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[" * 100_000, "[]", "null", "{}", '{"id": "1", "event": 5, "state": "pending"}', b"\xff"]
)
def test_what_is_no_run_is_refused_without_repeating_it(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is not (JSON|an object with)"):
        Run.parse(text)
