"""The status for people: what is wrong and what to do about it first, then where everything stands."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cdc.diagnosis import is_alive
from cdc.parked_report import parked_lines
from cdc.wording import ago, size
from transforms.condition.refusal import excerpt

PAUSE_SECONDS = 1.0
_FEW = 8
_STYLES = {"error": "bold red", "warning": "bold yellow"}


def show(status: Mapping[str, Any]) -> None:
    """Print it; in a file or a pipe without the blanks that fill lines up."""
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(view(status))
        return
    with console.capture() as written:
        console.print(view(status))
    lines = [line.rstrip() for line in written.get().splitlines()]
    console.print("\n".join(lines), markup=False, emoji=False, soft_wrap=True)


def watch(collect: Callable[[], Mapping[str, Any]], stop: threading.Event) -> None:
    """Show it live, about each second, until `stop` is set."""
    with Live(Text("..."), console=Console(highlight=False), auto_refresh=False, screen=sys.stdout.isatty()) as live:
        while not stop.is_set():
            live.update(view(collect()), refresh=True)
            stop.wait(PAUSE_SECONDS)


def view(status: Mapping[str, Any]) -> RenderableType:
    """The whole of it, as wide as the terminal."""
    parts: list[RenderableType] = [_headline(status)]
    if status["problems"]:
        parts.append(_problems(status["problems"], status["at"]))
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    last = ""
    for name, text in _lines(status):
        table.add_row(Text(name if name != last else "", style="bold"), Text(text))
        last = name
    return Group(*parts, Padding(table, (1, 0, 0, 0)))


def _headline(status: Mapping[str, Any]) -> Text:
    name = f"pipeline {status['pipeline']}: "
    counts = {kind: sum(each["severity"] == kind for each in status["problems"]) for kind in ("error", "warning")}
    if not status["problems"]:
        return Text.assemble((name + "all is well", "bold green"))
    told = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items() if count]
    return Text(name + ", ".join(told), style=_STYLES["error" if counts["error"] else "warning"])


def _problems(problems: Sequence[Mapping[str, Any]], now: float) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for problem in problems:
        since = problem["since"]
        when = "" if since is None else f", since {_clock(since)} ({ago(now - since)})"
        what = Text.assemble((f"{problem['part']} ", "bold"), problem["what"], when)
        table.add_row(Text(problem["severity"], style=_STYLES[problem["severity"]]), what)
        if problem["remedy"]:
            table.add_row("", Text(f"-> {problem['remedy']}", style="cyan"))
    return table


def _lines(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("source", line) for line in _source(status["source"]))
    if not status["transport"]["reachable"]:
        return
    yield from (("reader", line) for line in _reader(status["reader"], status["at"]))
    for standby in status.get("standbys", ()):
        since = ago(status["at"] - standby["since"])
        yield "standby", f"PID {standby['pid']} on {standby['host']} waits for the slot, for {since}"
    for event in status.get("events", ()):
        if event["state"] != "published":
            yield "event", f"{event['event']}: {event['state']}"
    for run in _worth_a_line(status["snapshots"]):
        done = "" if run["state"] == "refused" else f", {run['rows']:,} rows, {run['share']:.0%}"
        yield "snapshot", f"{_run_title(run)}: {run['state']}{done}"
        if run["reason"] and run["state"] != "refused":
            yield "snapshot", f"  made because {run['reason']}"
    if rest := [run for run in status["snapshots"] if run not in _worth_a_line(status["snapshots"])]:
        yield "snapshot", f"{len(rest)} events: done, {sum(run['rows'] for run in rest):,} rows"
    yield from (("parked", line) for line in parked_lines(status.get("parked", ())))
    if not status["sinks"]:
        yield "sink", "none has run yet"
    for sink in status["sinks"]:
        yield from (("sink", line) for line in _sink(sink, status["at"]))
    yield from (("stream", line) for line in _streams(status["streams"]))


def _streams(streams: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All, where they are few; else those that wait for somebody, those with most unread, and how many more."""
    told = streams
    if len(streams) > _FEW:
        weighty = sorted((stream for stream in streams if any(_weight(stream))), key=_weight, reverse=True)
        told = [stream for place, stream in enumerate(weighty) if place < _FEW or _weight(stream)[0]]
    for stream in told:
        yield f"{stream['key']}: {_entries(stream['entries'])}, {size(stream['bytes'])}, up to {stream['last_id']}"
        yield from _unread(stream)
    if rest := [stream for stream in streams if stream not in told]:
        entries, used = sum(stream["entries"] for stream in rest), sum(stream["bytes"] for stream in rest)
        yield f"{len(rest)} {'more' if told else 'streams'}: {_entries(entries)}, {size(used)}"


def _weight(stream: Mapping[str, Any]) -> tuple[bool, int]:
    """Whether it waits for somebody or was trimmed past him, and how much is unread."""
    waits = bool(stream["held_back_by"]) or any(reader["passed"] for reader in stream["readers"])
    return waits, max((reader["bytes"] for reader in stream["readers"] if reader["entries"]), default=0)


def _run_title(run: Mapping[str, Any]) -> str:
    where = f" where {excerpt(run['where'])}" if run["where"] else ""
    where += f" with changed {run['related']}" if run.get("related") else ""
    return f"{run['event']}{where}{' for ' + run['to'] if run['to'] else ''}"


def _worth_a_line(runs: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Those that are not done; all, where they are few."""
    return runs if len(runs) <= _FEW else [run for run in runs if run["state"] != "done"]


def _source(source: Mapping[str, Any]) -> Iterator[str]:
    if not source["reachable"]:
        yield "does not answer"
        return
    slot = source["slot"]
    if slot is None:
        yield "answers; there is no slot"
        return
    reader = f"read by PID {slot['active_pid']}" if slot["active_pid"] else "read by nobody"
    yield f"slot {slot['name']}, confirmed to {slot['confirmed']}, {reader}"
    if slot["wal_status"] == "lost":
        yield f"lost: {slot.get('lost_because') or 'it holds nothing any more'}"
        return
    if slot["limit_bytes"] is None:
        yield f"holds {size(slot['retained_bytes'])} of WAL, and nothing limits it (max_slot_wal_keep_size)"
        return
    yield f"holds {size(slot['retained_bytes'])} of at most {size(slot['limit_bytes'])} of WAL ({slot['wal_status']})"
    rate = f"{size(slot['wal_bytes_per_second'] or 0)}/s"
    if slot["seconds_left"] is not None:
        standing = "" if slot["active_pid"] is None else "if it stood still: "
        yield f"{standing}lost in {ago(slot['seconds_left'])} at the present {rate}"


def _reader(reader: Mapping[str, Any] | None, now: float) -> Iterator[str]:
    if reader is None:
        yield "has never run"
        return
    yield _state(reader, now)
    yield f"published to {reader['published']}{_behind(reader)}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count:,} entries"


def _unread(stream: Mapping[str, Any]) -> Iterator[str]:
    for reader in stream["readers"]:
        name = f"{reader['name']}{' (external group)' if reader['external'] else ''}"
        if reader["passed"]:
            yield f"  trimmed past {name}, which snapshots again when it returns"
        elif reader["entries"]:
            holds = ", held back for it" if reader["name"] in stream["held_back_by"] else ""
            yield f"  unread by {name}: {_entries(reader['entries'])}, {size(reader['bytes'])}{holds}"


def _sink(sink: Mapping[str, Any], now: float) -> Iterator[str]:
    dead = f", {sink['dead']:,} parked" if sink.get("dead") else ""
    yield f"{sink['name']}: {_state(sink, now)}{dead}"
    if sink.get("applied_lsn"):
        yield f"  applied to {sink['applied_lsn']}{_behind(sink)}"
    else:
        yield f"  {sink.get('rows', 0):,} rows written; it has not reached the end of its streams yet"
    for rebuild in sink.get("rebuilds", ()):
        reason = f"; it {rebuild['reason']}" if rebuild["reason"] else ""
        yield f"  rebuilds {rebuild['table']}: {rebuild['state']}, {rebuild['rows']:,} rows{reason}"


def _behind(part: Mapping[str, Any]) -> str:
    if part.get("lag_bytes") is None:
        return ""
    if part["lag_bytes"] == 0:
        return ", up to date"
    seconds = "" if part.get("lag_seconds") is None else f" and {part['lag_seconds']:,.1f} s"
    return f", {size(part['lag_bytes'])}{seconds} behind"


def _state(part: Mapping[str, Any], now: float) -> str:
    state = f"{part['state']}, since {_clock(part['since'])} ({ago(now - part['since'])})"
    if part["state"] == "stopped" or is_alive(part, now):
        return state
    return f"{state}, silent for {ago(now - part.get('alive_at', 0.0))}"


def _clock(at: float) -> str:
    return time.strftime("%b %d %H:%M:%S", time.localtime(at))
