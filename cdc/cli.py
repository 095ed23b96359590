"""The `cdc` command, beside the source."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from cdc.config import ReaderConfig, load_reader_config
from cdc.pipeline import Reader
from cdc.progress_view import progress_view
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE, StatecastError
from transforms.logs import log_formatter

log = logging.getLogger("cdc")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    defaults = argparse.Namespace(
        config=Path(os.environ.get("CDC_CONFIG", "cdc.toml")), log_format="text", log_level="info", connect_timeout=60.0
    )
    options = _parser().parse_args(arguments, defaults)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(log_formatter(options.log_format))
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
    try:
        code: int = options.command(options)
    except StatecastError as error:
        print(f"error: {error}\n  remedy: {error.remedy}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    return code


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration (CDC_CONFIG, else cdc.toml)")
    common.add_argument("--log-format", choices=["text", "json"])
    common.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    common.add_argument("--connect-timeout", type=float, metavar="SECONDS", help="patience before first contact (60)")
    parser = argparse.ArgumentParser(
        prog="cdc", description="Publish the full state of Postgres rows to Redis Streams.", parents=[common]
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_, parents=[common])
        sub.set_defaults(command=command)
        return sub

    run = add("run", _run, "snapshot what is missing or asked for, then stream")
    run.add_argument("--once", action="store_true", help="publish and confirm what is there now, then exit")
    snapshot = add("snapshot", _snapshot, "publish current state again")
    snapshot.add_argument("events", nargs="*", metavar="EVENT")
    snapshot.add_argument("--all", action="store_true", help="every event")
    snapshot.add_argument("--sink", metavar="NAME", help="for one sink only")
    snapshot.add_argument("--wait", action="store_true", help="until all of it is published")
    status = add("status", _status, "where everything stands")
    status.add_argument("--json", action="store_true")
    check = add("check", _check, "test every precondition")
    check.add_argument("--json", action="store_true")
    drop = add("drop", _drop, "remove slot, publication and the pipeline's keys")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    demo = add("demo", _demo, "the whole pipeline on embedded servers, with live load and a verdict")
    demo.add_argument("--seconds", type=float, default=30.0, metavar="N", help="how long the load runs (30)")
    return parser


def _config(options: argparse.Namespace) -> ReaderConfig:
    return load_reader_config(options.config, os.environ)


def _stop_on_signals(stop: threading.Event) -> None:
    """The first SIGTERM or SIGINT asks for an orderly end, the second one ends at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def _run(options: argparse.Namespace) -> int:
    config = _config(options)
    with progress_view(sys.stderr) as observe:
        reader = Reader(config, once=options.once, connect_timeout_seconds=options.connect_timeout, observe=observe)
        _stop_on_signals(reader.stop)
        reader.run()
    return EXIT_INTERRUPTED if options.once and reader.stop.is_set() else EXIT_DONE


def _snapshot(options: argparse.Namespace) -> int:
    from cdc.commands import request_snapshot

    config = _config(options)
    if options.all == bool(options.events):
        print("error: name the events to publish again, or --all", file=sys.stderr)
        return EXIT_USAGE
    stop = threading.Event()
    _stop_on_signals(stop)
    return request_snapshot(config, options.events, options.sink, wait=options.wait, stop=stop, say=print)


def _status(options: argparse.Namespace) -> int:
    from cdc.status import collect, lines

    status = collect(_config(options))
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        print("\n".join(lines(status)))
    return EXIT_DONE if status["complete"] else EXIT_DIFFERENCE


def _check(options: argparse.Namespace) -> int:
    from cdc.check import run_checks

    findings = run_checks(_config(options))
    if options.json:
        print(json.dumps([finding.to_dict() for finding in findings], indent=2))
    else:
        print("\n".join(line for finding in findings for line in finding.lines()))
    return EXIT_DIFFERENCE if any(finding.verdict == "error" for finding in findings) else EXIT_DONE


def _drop(options: argparse.Namespace) -> int:
    from cdc.commands import drop

    config = _config(options)
    if not options.yes:
        question = f"Remove slot {config.source.slot}, its publication and all keys {config.pipeline.name}:* ? [y/N] "
        if not sys.stdin.isatty():
            print("error: this cannot be undone, so it needs --yes where nobody can be asked", file=sys.stderr)
            return EXIT_USAGE
        if input(question).strip().lower() not in ("y", "yes"):
            return EXIT_INTERRUPTED
    drop(config, say=print)
    return EXIT_DONE


def _demo(options: argparse.Namespace) -> int:
    from cdc.demo.run import run_demo

    stop = threading.Event()
    _stop_on_signals(stop)
    code: int = run_demo(options.seconds, stop=stop)
    return code


if __name__ == "__main__":
    sys.exit(main())
