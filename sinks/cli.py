"""The `cdc-sink` command, beside each consuming service."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial

from sinks.config import SinkConfig, load_sink_config
from sinks.dead_events import DeadEvent
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
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), arguments, os.environ)


def _parser() -> argparse.ArgumentParser:
    common = common_options()
    parser = argparse.ArgumentParser(
        prog="cdc-sink", description="Apply events to replica tables.", parents=[common], allow_abbrev=False
    )
    version_option(parser, "sinks._entries")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, help_: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_, parents=[common], allow_abbrev=False)
        sub.add_argument("name", metavar="NAME", help="the sink: a section [sinks.NAME] of the configuration")
        sub.set_defaults(command=command)
        return sub

    run = add("run", _run, "apply events")
    run.add_argument("--once", action="store_true", help="apply what is there now, then exit")
    metrics_options(run)
    check = add("check", _check, "test every precondition")
    check.add_argument("--json", action="store_true")
    tables = add("tables", _tables, "print the DDL of the replica tables")
    tables.add_argument("--apply", action="store_true", help="run it, and record whose the tables are")
    rebuild = add("rebuild", _rebuild, "fill a replica table anew beside the one that is read, and swap the two")
    rebuild.description = (
        "Have the sink's worker rebuild the replica table of an event: with the columns and types that the event has"
        " now, and without bloat. Readers of the table see the old rows, kept up to date, until the new ones are all"
        " there. Needs as much disk again while it lasts. The worker must be running; it goes on after any crash."
    )
    rebuild.add_argument("event", metavar="EVENT", help="an event that the sink maps, like customer or customer.v2")
    rebuild.add_argument("--wait", action="store_true", help="tell how far it is until it is done")
    rebuild.add_argument("--keep-old", metavar="TABLE", help="keep the old table, under this name in its schema")
    rebuild.add_argument(
        "--drop-columns", action="store_true", help="leave out columns that no field of the event fills"
    )
    rebuild.add_argument("--call-off", action="store_true", help="end a rebuild; the table stays as it is")
    dead = add("dead", _dead_list, "look at parked events and decide on them")
    actions = dead.add_subparsers(required=True, metavar="ACTION")

    def act(name: str, command: Command, help_: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help_, description=help_, parents=[common], allow_abbrev=False)
        sub.set_defaults(command=command)
        return sub

    listing = act("list", _dead_list, "what is parked, without values")
    listing.add_argument("--json", action="store_true")
    act("show", _dead_show, "one event with its values").add_argument("id", type=int, metavar="ID")
    act("retry", _dead_retry, "apply events again").add_argument("ids", type=int, nargs="+", metavar="ID")
    drop = act("drop", _dead_drop, "forget events; their rows stay behind until the next event of their keys")
    drop.add_argument("ids", type=int, nargs="+", metavar="ID")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _config(options: argparse.Namespace) -> SinkConfig:
    return load_sink_config(options.config, os.environ, options.name)


def _run(options: argparse.Namespace) -> int:
    from sinks.worker import Worker

    stop = threading.Event()
    stop_on_signals(stop, late_exit_code=EXIT_INTERRUPTED if options.once else EXIT_DONE)
    config = _config(options)
    worker = Worker(config, stop, once=options.once, connect_timeout_seconds=options.connect_timeout)
    with ExitStack() as stack:
        if options.metrics_port is not None:
            from sinks.monitoring import monitored

            stack.enter_context(monitored(worker, config, options.metrics_host, options.metrics_port))
        return worker.run()


def _check(options: argparse.Namespace) -> int:
    from sinks.check import check

    return print_findings(check(_config(options)), as_json=options.json)


def _tables(options: argparse.Namespace) -> int:
    from sinks.check import tables

    print("\n".join(tables(_config(options), apply=options.apply)) or "-- nothing to do: the replica tables fit")
    return EXIT_DONE


def _rebuild(options: argparse.Namespace) -> int:
    from sinks.rebuild.command import RebuildCommand, Wishes

    stop = threading.Event()
    stop_on_signals(stop, late_exit_code=EXIT_INTERRUPTED)
    say = partial(print, flush=True)
    with closing(RebuildCommand(_config(options), options.event)) as command:
        if options.call_off:
            return command.call_off(say)
        id_ = command.ask(Wishes(options.keep_old, options.drop_columns), say)
        return command.follow(id_, stop, say) if options.wait else EXIT_DONE


def _dead_list(options: argparse.Namespace) -> int:
    from sinks.dead_commands import DeadCommands

    with closing(DeadCommands(_config(options))) as commands:
        events = commands.all()
    if options.json:
        print(json.dumps([_summary(event) for event in events], indent=2))
    else:
        lines = [
            f"{event.id:>6}  {event.parked_at:%Y-%m-%d %H:%M:%S}  {event.type}  {event.message}" for event in events
        ]
        print("\n".join(lines) or "nothing is parked")
    return EXIT_DONE


def _dead_show(options: argparse.Namespace) -> int:
    from sinks.dead_commands import DeadCommands

    with closing(DeadCommands(_config(options))) as commands:
        event = commands.show(options.id)
    state = None if event.change.state is None else event.change.state.decode(errors="backslashreplace")
    values = {"key": event.change.key.decode(errors="backslashreplace"), "state": state}
    fields = {"partial": event.change.partial, "quoted": event.change.quoted, "rev": event.change.rev}
    print(json.dumps(_summary(event) | values | fields, indent=2, ensure_ascii=False))
    return EXIT_DONE


def _dead_retry(options: argparse.Namespace) -> int:
    from sinks.dead_commands import DeadCommands

    with closing(DeadCommands(_config(options))) as commands:
        outcome = commands.retry(options.ids)
    for id_, refusal in outcome.items():
        print(f"{id_}: {'applied' if refusal is None else f'refused again: {refusal}'}")
    return EXIT_DIFFERENCE if any(refusal is not None for refusal in outcome.values()) else EXIT_DONE


def _dead_drop(options: argparse.Namespace) -> int:
    from sinks.dead_commands import DeadCommands

    config = _config(options)
    if not may_go_on(f"Forget {len(options.ids)} parked events of {config.name} for good?", yes=options.yes):
        return EXIT_INTERRUPTED
    with closing(DeadCommands(config)) as commands:
        count = commands.drop(options.ids)
    print(f"forgotten: {count}")
    return EXIT_DONE if count == len(set(options.ids)) else EXIT_DIFFERENCE


def _summary(event: DeadEvent) -> dict[str, object]:
    return {
        "id": event.id,
        "stream": event.stream,
        "entry": event.change.entry_id.decode(),
        "type": event.type,
        "op": event.op,
        "sqlstate": event.sqlstate,
        "message": event.message,
        "parked_at": event.parked_at.isoformat(),
        "attempts": event.attempts,
    }


if __name__ == "__main__":
    sys.exit(main())
