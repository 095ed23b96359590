"""`cdc demo`: everything is real, the replicas end equal to the source, and nothing is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from rich.console import Console

from cdc.demo import shop
from cdc.demo.figures import Entry, Figures, SinkFigures, StreamFigures
from cdc.demo.scratch import scratch_directory
from cdc.demo.verdict import compare
from cdc.demo.view import LOWEST, NARROWEST, Picture
from cdc.snapshot.run import Run
from transforms.position import LSN

COMMANDS_STARTED = "$ cdc run"
END_SECONDS = 90.0


@contextmanager
def demo(seconds: int) -> Iterator[subprocess.Popen[str]]:
    """The command; killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "cdc.cli", "demo", "--seconds", str(seconds)]
    environment = os.environ | {"TMPDIR": str(scratch_directory())}  # so that its servers are where the tests' are
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], promise: str) -> None:
    deadline = time.monotonic() + END_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {END_SECONDS:.0f} s: {promise}")
        time.sleep(0.05)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"the demo ended before it said {text!r}")


def descendants(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def directories_of(processes: list[psutil.Process]) -> set[Path]:
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            found.add(Path(process.cwd()))
    return found - {Path("/"), Path.cwd()}


def test_replicas_equal_the_source_after_live_load_during_the_snapshot() -> None:
    with demo(seconds=3) as process:
        output, complaints = process.communicate(timeout=240)
    assert (process.returncode, complaints) == (0, ""), output
    assert output.splitlines()[-1] == "0 differences"


def test_an_interrupted_demo_leaves_no_process_and_no_directory() -> None:
    with demo(seconds=30) as process:
        read_until(process, COMMANDS_STARTED)
        started = descendants(process)
        directories = directories_of(started)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=END_SECONDS)
    assert process.returncode == 130
    assert directories != set()
    wait_until(lambda: not any(each.is_running() for each in started), "no process left")
    assert [directory for directory in directories if directory.exists()] == []


def test_a_command_that_ends_early_is_named_with_the_end_of_its_log() -> None:
    with demo(seconds=30) as process:
        read_until(process, COMMANDS_STARTED)
        (sink,) = [child for child in descendants(process) if child.cmdline()[-2:] == ["run", "billing"]]
        sink.kill()
        output, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 1
    assert "`cdc-sink run billing` ended with exit code -9; its log ends:" in output


def test_the_verdict_names_what_is_missing_surplus_and_different(source_dsn: str, target_dsn: str) -> None:
    with psycopg.connect(source_dsn) as source, psycopg.connect(target_dsn) as target:
        source.execute("CREATE TABLE kept (id int, part int, note text, secret text, PRIMARY KEY (id, part))")
        source.execute("INSERT INTO kept VALUES (1, 1, 'a'), (2, 1, NULL), (3, 1, 'c\td'), (10, 1, 'e'), (10, 2, 'f')")
        target.execute("CREATE TABLE kept (id int, part int, note text)")
        target.execute("INSERT INTO kept VALUES (1, 1, 'a'), (2, 1, ''), (3, 1, 'c\td'), (10, 1, 'e'), (11, 1, 'g')")
    copy = shop.Copy("test", "kept", "public.kept", "public.kept", ("id", "part", "note"))
    verdict = compare(copy, source_dsn, target_dsn)
    assert (verdict.rows, verdict.differences) == (5, 3)
    assert set(verdict.examples) == {("different", "2, 1"), ("missing", "10, 2"), ("surplus", "11, 1")}


def test_a_replica_table_that_was_never_made_lacks_every_row(source_dsn: str, target_dsn: str) -> None:
    with psycopg.connect(source_dsn) as source:
        source.execute("CREATE TABLE kept (id int PRIMARY KEY)")
        source.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    verdict = compare(shop.Copy("test", "kept", "nowhere.kept", "public.kept", ("id",)), source_dsn, target_dsn)
    assert (verdict.rows, verdict.differences, len(verdict.examples)) == (1000, 1000, 5)


@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_live_picture_fits_a_small_terminal(ascii_only: bool) -> None:
    run = Run("1", "customer.v1", state="running", rows=12_345_678, share=0.5)
    sinks = [
        SinkFigures(name, "snapshotting", LSN(2**40), 10**9, 99.9, [0.1] * 100) for name in ("billing", "shipping")
    ]
    figures = Figures(
        phase="initial snapshot under live load",
        trouble="reader reconnecting: " + "the server closed the connection unexpectedly " * 5,
        changes=1_234_567,
        change_rate=12_345.6,
        change_history=[1.0, 2.0] * 50,
        published=LSN(2**40),
        behind_bytes=10**9,
        streams=[StreamFigures(event, 12_345_678, 123_456.0, run) for event in shop.events()],
        sinks=sinks,
        newest=Entry(
            "shop:product", f"{2**63}-1000000", {"op": "upsert", "key": "{}", "state": '{"a":"' + "x" * 9000 + '"}'}
        ),
    )
    console = Console(width=NARROWEST)
    with console.capture() as capture:
        console.print(Picture(NARROWEST, ascii_only=ascii_only).draw(figures, "18 s of 30 s"))
    lines = capture.get().splitlines()
    assert len(lines) <= LOWEST
    assert {len(line) for line in lines} == {NARROWEST}
