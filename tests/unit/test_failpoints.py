"""Failpoints act where and when they were told to, and a run that was not meant to fail refuses to start."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from transforms import failpoints
from transforms.command_line import common_options, run_command
from transforms.failpoints import ALLOWED_BY, ARMED_BY, OF_READER, OF_SINK, Failpoint, FailpointReached

ROOT = Path(__file__).parents[2]


def armed(text: str) -> Mapping[str, str]:
    return {ARMED_BY: text, ALLOWED_BY: "1"}


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm({})


def run(environ: Mapping[str, str]) -> int:
    parser = argparse.ArgumentParser(parents=[common_options()])
    parser.set_defaults(command=lambda _: 0)
    return run_command(parser, [], environ)


def test_a_run_without_the_flag_for_tests_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run({ARMED_BY: "batch-sent:kill"}) == 2
    said = capsys.readouterr().err
    assert f"error: {ARMED_BY} is set" in said
    assert f"remedy: Unset {ARMED_BY}" in said


@pytest.mark.parametrize("flag", ["", "0", "yes", "true"])
def test_only_one_word_allows_them(flag: str) -> None:
    assert run({ARMED_BY: "batch-sent:kill", ALLOWED_BY: flag}) == 2


@pytest.mark.parametrize(
    "text", ["batch-sent", "batch-sent:sleep", "elsewhere:kill", "batch-sent:kill@0", "batch-sent:kill,", "kill"]
)
def test_what_is_no_failpoint_is_refused_with_what_there_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(armed(text)) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in (*Failpoint, *failpoints.Action))


@pytest.mark.parametrize("environ", [{}, {ARMED_BY: ""}, {ALLOWED_BY: "1"}])
def test_nothing_is_armed_by_default(environ: Mapping[str, str]) -> None:
    assert run(environ) == 0
    for place in Failpoint:
        failpoints.reached(place)


def test_it_acts_at_the_pass_it_was_told_and_once() -> None:
    failpoints.arm(armed("rows-applied:error@3, group-moved:error"))
    failpoints.reached(Failpoint.ROWS_APPLIED)
    with pytest.raises(FailpointReached):
        failpoints.reached(Failpoint.GROUP_MOVED)
    failpoints.reached(Failpoint.ROWS_APPLIED)
    with pytest.raises(FailpointReached):
        failpoints.reached(Failpoint.ROWS_APPLIED)
    failpoints.reached(Failpoint.ROWS_APPLIED)


def test_the_next_command_of_a_process_forgets_them() -> None:
    assert run(armed("rows-applied:error")) == 0
    assert run({}) == 0
    failpoints.reached(Failpoint.ROWS_APPLIED)


def test_kill_is_the_death_that_nothing_can_catch() -> None:
    code = (
        "from transforms import failpoints\n"
        f"failpoints.arm({dict(armed('batch-sent:kill'))!r})\n"
        "failpoints.reached(failpoints.Failpoint.BATCH_SENT)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == -signal.SIGKILL


def test_each_belongs_to_one_of_the_two_and_stands_in_its_code() -> None:
    assert (*OF_READER, *OF_SINK) == tuple(Failpoint)
    for places, folder in ((OF_READER, "cdc"), (OF_SINK, "sinks")):
        code = "".join(path.read_text() for path in (ROOT / folder).rglob("*.py"))
        found = re.findall(r"(?:reached|fail)\(Failpoint\.(\w+)\)", code)
        assert sorted(found) == sorted(place.name for place in places)
