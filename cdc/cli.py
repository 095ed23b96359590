"""The `cdc` command, beside the source."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cdc.config import ReaderConfig, load_reader_config
from transforms.address import Address
from transforms.command_line import (
    Command,
    common_options,
    may_go_on,
    metrics_options,
    print_findings,
    run_command,
    stop_on_signals,
    version_option,
)
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED, EXIT_USAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), arguments, os.environ)


def _parser() -> argparse.ArgumentParser:
    common = common_options()
    parser = argparse.ArgumentParser(
        prog="cdc", description="Publish the full state of Postgres rows to Redis Streams.", parents=[common]
    )
    version_option(parser, "transforms._rows")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_, parents=[common])
        sub.set_defaults(command=command)
        return sub

    init = add("init", _init, "write a starter configuration for a database that is there already")
    init.add_argument(
        "--source", metavar="DSN", default="${SOURCE_DSN}", help="the database (${SOURCE_DSN}, which ps does not show)"
    )
    init.add_argument(
        "--table", action="append", default=[], metavar="GLOB", help="only tables whose name or schema.name matches"
    )
    init.add_argument(
        "-o", "--output", metavar="FILE", help="where to write, - for standard output (what -c names, else cdc.toml)"
    )
    init.add_argument(
        "--allow-plaintext", action="store_true", help="without TLS that checks the server, now and in the file"
    )
    run = add("run", _run, "snapshot what is missing or asked for, then stream")
    run.add_argument("--once", action="store_true", help="publish and confirm what is there now, then exit")
    metrics_options(run)
    snapshot = add("snapshot", _snapshot, "publish current state again")
    snapshot.add_argument("events", nargs="*", metavar="EVENT")
    snapshot.add_argument("--all", action="store_true", help="every event")
    snapshot.add_argument("--sink", metavar="NAME", help="for one sink only")
    snapshot.add_argument(
        "--where",
        metavar="SQL",
        help="only rows that meet a condition, like \"region IN ('eu', 'us') AND total >= 100\": columns of the event"
        " compared with literals (= <> < <= > >=, IN, BETWEEN, LIKE, IS NULL; AND, OR, NOT); no sink deletes anything",
    )
    snapshot.add_argument("--wait", action="store_true", help="until all of it is published")
    pause = snapshot.add_mutually_exclusive_group()
    pause.add_argument("--pause", action="store_true", help="let all snapshots wait; changes flow on")
    pause.add_argument("--resume", action="store_true", help="let them go on where they are")
    status = add("status", _status, "where everything stands")
    status.add_argument("--json", action="store_true")
    status.add_argument("--watch", action="store_true", help="again and again, until it is interrupted")
    check = add("check", _check, "test every precondition")
    check.add_argument("--json", action="store_true")
    schema = add("schema", _schema, "what events hold, as JSON Schema or as typed Python models")
    schema.add_argument("events", nargs="*", metavar="EVENT", help="the event's name, type or label, customer.v1 (all)")
    schema.add_argument("--format", choices=["jsonschema", "python"], default="jsonschema", help="(jsonschema)")
    schema.add_argument(
        "--planned", action="store_true", help="as source and configuration have it now, whatever was published"
    )
    forget = add("forget", _forget, "drop a sink or consumer group that is gone for good")
    forget.add_argument("name", metavar="NAME")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    drop = add("drop", _drop, "remove slot, publication and the pipeline's keys")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    demo = add("demo", _demo, "the whole pipeline on embedded servers, with live load and a verdict")
    demo.add_argument("--seconds", type=float, default=30.0, metavar="N", help="how long the load runs (30)")
    return parser


def _config(options: argparse.Namespace) -> ReaderConfig:
    return load_reader_config(options.config, os.environ)


def _init(options: argparse.Namespace) -> int:
    from cdc.init.command import propose, read_dsn
    from cdc.init.output import refuse_to_overwrite, write_new

    address = Address("source", read_dsn(options.source, os.environ), options.allow_plaintext)
    if options.output == "-":
        proposal = propose(address, options.table, file=None)
        print(proposal.file, end="")
        print(proposal.report, file=sys.stderr)
        return EXIT_DONE
    path = Path(options.output or options.config)
    refuse_to_overwrite(path)
    proposal = propose(address, options.table, file=path)
    write_new(path, proposal.file)
    print(proposal.report)
    return EXIT_DONE


def _run(options: argparse.Namespace) -> int:
    from cdc.hooks import expect_hooks
    from cdc.pipeline import Reader
    from cdc.progress_view import progress_view

    config = _config(options)
    expect_hooks(config.events)
    with ExitStack() as stack:
        observe = stack.enter_context(progress_view(sys.stderr))
        reader = Reader(config, once=options.once, connect_timeout_seconds=options.connect_timeout, observe=observe)
        stop_on_signals(reader.stop, late_exit_code=EXIT_INTERRUPTED if options.once else EXIT_DONE)
        if options.metrics_port is not None:
            from cdc.monitoring import monitored

            stack.enter_context(monitored(reader, config, options.metrics_host, options.metrics_port))
        reader.run()
    return EXIT_INTERRUPTED if options.once and reader.stop.is_set() else EXIT_DONE


def _snapshot(options: argparse.Namespace) -> int:
    from cdc.commands import pause_snapshots, request_snapshot

    config = _config(options)
    if options.pause or options.resume:
        if options.all or options.events or options.sink or options.wait or options.where is not None:
            print("error: --pause and --resume stand alone: they are for all snapshots", file=sys.stderr)
            return EXIT_USAGE
        pause_snapshots(config, paused=options.pause, say=print)
        return EXIT_DONE
    if options.all == bool(options.events):
        print("error: name the events to publish again, or --all", file=sys.stderr)
        return EXIT_USAGE
    stop = threading.Event()
    stop_on_signals(stop, late_exit_code=EXIT_INTERRUPTED)
    asked = options.events, options.sink, options.where
    return request_snapshot(config, *asked, wait=options.wait, stop=stop, say=print)


def _status(options: argparse.Namespace) -> int:
    from cdc.status import collect
    from cdc.status_view import show, watch

    config = _config(options)
    if options.watch:
        if options.json:
            print("error: --watch is for people: it does not go with --json", file=sys.stderr)
            return EXIT_USAGE
        stop = threading.Event()
        stop_on_signals(stop, late_exit_code=None)
        watch(lambda: collect(config), stop)
        return EXIT_DONE
    status = collect(config)
    if options.json:
        print(json.dumps(status, indent=2))
    else:
        show(status)
    return EXIT_DONE if status["complete"] else EXIT_DIFFERENCE


def _check(options: argparse.Namespace) -> int:
    from cdc.check.command import run_checks

    return print_findings(run_checks(_config(options)), as_json=options.json)


def _schema(options: argparse.Namespace) -> int:
    from cdc.schema_command import find_documents, load_schema_config, written

    config = load_schema_config(options.config, os.environ)
    documents = find_documents(config, options.events, planned=options.planned)
    print(written(config, documents, options.format), end="")
    return EXIT_DONE


def _forget(options: argparse.Namespace) -> int:
    from cdc.retention.forgetting import forget

    config = _config(options)
    question = (
        f"Forget where {options.name} stands in the streams of {config.pipeline.name}? What it has not read may go."
    )
    if not may_go_on(question, yes=options.yes):
        return EXIT_INTERRUPTED
    forget(config, options.name, say=print)
    return EXIT_DONE


def _drop(options: argparse.Namespace) -> int:
    from cdc.commands import drop

    config = _config(options)
    question = f"Remove slot {config.source.slot}, its publication and all keys {config.pipeline.name}:* ?"
    if not may_go_on(question, yes=options.yes):
        return EXIT_INTERRUPTED
    drop(config, say=print)
    return EXIT_DONE


def _demo(options: argparse.Namespace) -> int:
    from cdc.demo.run import run_demo

    stop = threading.Event()
    stop_on_signals(stop, late_exit_code=None)
    code: int = run_demo(options.seconds, stop=stop)
    return code


if __name__ == "__main__":
    sys.exit(main())
