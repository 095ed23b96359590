"""The frame of both commands: how an end that nobody wished for reaches whoever reads the log."""

from __future__ import annotations

import argparse
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from cdc.cli import main as reader_main
from sinks.cli import main as sink_main
from transforms.command_line import Command, common_options, print_findings, run_command
from transforms.errors import ValueNotEncodable
from transforms.finding import Finding


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Give logging and threading back as they were."""
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, threading.excepthook
    yield
    root.handlers[:], threading.excepthook = handlers, hook
    root.setLevel(level)


def run(command: Command, *arguments: str) -> int:
    parser = argparse.ArgumentParser(parents=[common_options()])
    parser.set_defaults(command=command)
    return run_command(parser, arguments, {})


def refuse(_: argparse.Namespace) -> int:
    raise ValueNotEncodable("it does not fit", remedy="Mend it.")


def fail(_: argparse.Namespace) -> int:
    raise ZeroDivisionError("a\nb")


def fail_in_a_thread(_: argparse.Namespace) -> int:
    thread = threading.Thread(target=fail, args=(_,))
    thread.start()
    thread.join()
    return 0


@pytest.mark.parametrize(("main", "command"), [(reader_main, "snapshot"), (sink_main, "rebuild")])
def test_who_names_no_command_is_told_which_there_are(
    main: Callable[[list[str]], int], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert f"\n    {command} " in printed.err
    assert printed.out == ""


def test_an_error_is_message_and_remedy_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(refuse) == 3
    assert capsys.readouterr().err == "error: it does not fit\n  remedy: Mend it.\n"


def test_an_error_is_wrapped_in_a_terminal_and_its_remedy_is_left_to_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def talk(_: argparse.Namespace) -> int:
        raise ValueNotEncodable("so many words\nand more", remedy="GRANT this ON TABLE that TO them;")

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "15")
    assert run(talk) == 3
    told = "error: so many\n  words\nand more\n  remedy: GRANT this ON TABLE that TO them;\n"
    assert terminal.getvalue() == told


def test_an_error_is_one_json_line_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(refuse, "--log-format", "json") == 3
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["message"]) == ("error", "it does not fit")
    assert (line["error"], line["remedy"]) == ("ValueNotEncodable", "Mend it.")


@pytest.mark.parametrize(("command", "code"), [(fail, 1), (fail_in_a_thread, 0)])
def test_a_traceback_is_one_json_line_for_machines(
    command: Command, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "--log-format", "json") == code
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"]) == ("critical", "transforms.command_line")
    assert line["exception"].endswith("ZeroDivisionError: a\nb")


def test_a_traceback_is_left_as_it_is_for_people() -> None:
    with pytest.raises(ZeroDivisionError):
        run(fail)


@pytest.mark.parametrize("style", ["text", "json"])
def test_whoever_reads_our_output_may_leave_early(style: str) -> None:
    program = (
        "import argparse, sys\n"
        "from transforms.command_line import common_options, run_command\n"
        "def talk(_):\n"
        "    while True: print('x' * 10_000, flush=True)\n"
        "parser = argparse.ArgumentParser(parents=[common_options()])\n"
        "parser.set_defaults(command=talk)\n"
        f"sys.exit(run_command(parser, ['--log-format', '{style}'], {{}}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talking:
        assert talking.stdout is not None
        assert talking.stderr is not None
        assert talking.stdout.read(1) == b"x"
        talking.stdout.close()
        assert talking.stderr.read() == b""
        assert talking.wait(30) == 0


OK, WARNING, ERROR = (
    Finding("ok", "a", "fits"),
    Finding("warning", "b", "is old"),
    Finding("error", "c", "is gone", "Mend"),
)


def test_what_is_wrong_comes_last_where_it_is_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_findings([ERROR, WARNING, OK], as_json=False) == 1
    lines = ["ok       a: fits", "warning  b: is old", "error    c: is gone", "         Mend", "1 error, 1 warning"]
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize(
    ("findings", "last"), [([OK], "everything is ready"), ([WARNING, OK], "1 warning: nothing stands in the way")]
)
def test_the_last_line_tells_whether_one_may_go_on(
    findings: list[Finding], last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_findings(findings, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[-1] == last


def test_a_signal_in_the_midst_of_waiting_for_it_is_heard() -> None:
    program = """
import os, signal, threading
from transforms.command_line import stop_on_signals
stop = threading.Event()
stop_on_signals(stop, late_exit_code=None)
with stop._cond:  # as stop.wait() holds it for a moment
    os.kill(os.getpid(), signal.SIGTERM)
assert stop.wait(20)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
