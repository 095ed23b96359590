"""The frame of the two commands: common options, logs to standard error, errors as message and remedy, signals."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from transforms import accelerator, failpoints
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, StatecastError
from transforms.finding import Finding, wrapped
from transforms.logs import log_formatter

STOP_SECONDS = 4.5
"""How long an orderly end may take before the process ends as it is. That is safe: a killed one loses nothing."""

_COLOURS = {"ok": "32", "warning": "33", "error": "1;31"}  # green, yellow, bold red

log = logging.getLogger(__name__)


class NobodyToAsk(StatecastError):
    """A command asks before it goes on, and its standard input is not a terminal."""

    exit_code = EXIT_USAGE
    remedy = "Add --yes if you mean it."


Command = Callable[[argparse.Namespace], int]


def common_options() -> argparse.ArgumentParser:
    """Options that stand before or after a subcommand: a parent of all parsers."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration (CDC_CONFIG, else cdc.toml)")
    common.add_argument("--log-format", choices=["text", "json"])
    common.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    common.add_argument("--connect-timeout", type=float, metavar="SECONDS", help="patience before first contact (60)")
    return common


class _PrintVersion(argparse.Action):
    """Looks up what it prints when it is asked, not whenever a command starts."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(accelerator.version(str(self.const)))
        parser.exit()


def version_option(parser: argparse.ArgumentParser, compiled: str) -> None:
    """`compiled`: the module with the command's compiled code, where it was built."""
    parser.add_argument(
        "--version", action=_PrintVersion, nargs=0, const=compiled, help="print it, and whether hot paths are compiled"
    )


def metrics_options(run: argparse.ArgumentParser) -> None:
    """Where a long-running command answers for itself; nowhere unless a port is given."""
    run.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve /metrics, /healthz and /readyz over HTTP (0: on a free port, which is logged)",
    )
    run.add_argument(
        "--metrics-host", default="127.0.0.1", metavar="HOST", help="on this address (127.0.0.1: this machine alone)"
    )


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None, environ: Mapping[str, str]) -> int:
    """Parse, run `options.command`, and turn what it raises into messages; returns the exit code."""
    defaults = argparse.Namespace(
        config=Path(environ.get("CDC_CONFIG") or "cdc.toml"), log_format="text", log_level="info", connect_timeout=60.0
    )
    words = sys.argv[1:] if arguments is None else arguments
    if not words and parser.get_default("command") is None:  # somebody who wants to know what there is
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    options = parser.parse_args(words, defaults)
    _tune_interpreter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_formatter(options.log_format))
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler], force=True)
    as_json = options.log_format == "json"
    if as_json:
        threading.excepthook = _log_uncaught
    try:
        failpoints.arm(environ)
        code: int = options.command(options)
    except StatecastError as error:
        if as_json:
            log.error("%s", error, extra={"error": type(error).__name__, "remedy": error.remedy})
        else:
            width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
            print(f"{wrapped(f'error: {error}', width)}\n  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception:
        if not as_json:
            raise
        log.critical("a mistake in statecast", exc_info=True)
        return EXIT_DIFFERENCE
    return code


def _log_uncaught(failure: threading.ExceptHookArgs) -> None:
    """What ends a thread, as a log line."""
    if failure.exc_value is not None:
        log.critical("a mistake in statecast ends a thread", exc_info=failure.exc_value)


def _tune_interpreter() -> None:
    """Settings of the interpreter for threads that move many small values.

    A thread whose reply has come waits 1 ms and not 5 for the one that computes. Entries are freed by their reference
    counts; that the collector looks for cycles among them after each 700 of them is a third of what reading them costs.
    """
    sys.setswitchinterval(0.001)
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def print_findings(findings: Sequence[Finding], *, as_json: bool) -> int:
    """Print what `check` found, the worst last, where it is seen; returns its exit code."""
    counts = {verdict: sum(each.verdict == verdict for each in findings) for verdict in ("error", "warning")}
    if as_json:
        print(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        terminal = sys.stdout.isatty()
        for finding in sorted(findings, key=lambda finding: ("ok", "warning", "error").index(finding.verdict)):
            first, *rest = finding.lines(shutil.get_terminal_size().columns if terminal else None)
            verdict = f"\x1b[{_COLOURS[finding.verdict]}m{finding.verdict}\x1b[0m" if terminal else finding.verdict
            print("\n".join([verdict + first.removeprefix(finding.verdict), *rest]))
        told = [f"{count} {verdict}{'s' if count > 1 else ''}" for verdict, count in counts.items() if count]
        stands = "" if counts["error"] or not told else ": nothing stands in the way"
        print((", ".join(told) or "everything is ready") + stands)
    return EXIT_DIFFERENCE if counts["error"] else EXIT_DONE


def may_go_on(question: str, *, yes: bool) -> bool:
    """Ask before something that cannot be undone. Raises NobodyToAsk."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise NobodyToAsk("this cannot be undone, and there is nobody to ask")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def stop_on_signals(stop: threading.Event, *, late_exit_code: int | None = EXIT_DONE) -> None:
    """The first SIGTERM or SIGINT asks for an orderly end, the second one ends at once.

    An end that takes longer than STOP_SECONDS is cut short with `late_exit_code`, unless that is None.
    """

    def give_up() -> None:
        log.warning("not everything answered within %.1f s: ending without it", STOP_SECONDS)
        os._exit(late_exit_code or EXIT_DONE)

    told = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told or stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        told = True
        # In a thread of its own: what was interrupted here may be in stop.wait(), with the lock that set() takes.
        threading.Thread(target=stop.set, name="stop", daemon=True).start()
        if late_exit_code is not None:
            timer = threading.Timer(STOP_SECONDS, give_up)
            timer.daemon = True
            timer.start()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
