"""What is wrong, worst first, judged from the figures that `cdc status` collects: what, since when, why, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cdc.parked_report import what_is_parked
from cdc.wording import ago, size
from transforms import published

Severity = Literal["error", "warning"]

FRESH_SECONDS = 10.0
"""A status that is older belongs to a process that is gone, or hangs."""
SOON_SECONDS = 6 * 3600.0
"""A slot that nobody reads is an error, and no warning any more, when it has less than this left."""
FULL_SHARE = 0.75
"""A slot that holds more than this of what it may is worth a warning, also while it is read."""
BEHIND_SECONDS = 60.0
"""From this lag on a sink that works is worth a warning."""


_AT_WORK = ("streaming", "snapshotting", "standby")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that wants a person."""

    severity: Severity
    part: str
    """`source`, `slot`, `reader`, `transport`, or the name of a sink or an event."""
    what: str
    since: float | None = None
    """Seconds since 1970."""
    remedy: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def problems(status: Mapping[str, Any]) -> list[Problem]:
    """All there are, errors first; empty when all is well."""
    found = [*_source(status), *_transport(status), *_reader(status), *_events(status), *_snapshots(status)]
    found += [*_streams(status), *_sinks(status)]
    return sorted(found, key=lambda problem: problem.severity != "error")


def is_alive(part: Mapping[str, Any], now: float) -> bool:
    """Whether the process that wrote this status is there, as far as one can tell."""
    return bool(part["state"] != "stopped" and now - part.get("alive_at", 0.0) < FRESH_SECONDS)


def _source(status: Mapping[str, Any]) -> Iterator[Problem]:
    source = status["source"]
    if not source["reachable"]:
        yield Problem("error", "source", f"does not answer: {source['reason']}", remedy=source["remedy"])
        return
    slot = source["slot"]
    if slot is None:
        if status["reader"] is not None:
            yield Problem(
                "error", "slot", "does not exist any more: changes since its last position are lost to the streams",
                remedy="Run `cdc snapshot --all`, then `cdc run`: a fresh snapshot reconciles the replicas.",
            )  # fmt: skip
        return
    if slot["wal_status"] == "lost":
        yield Problem(
            "error", "slot", f"{slot['name']} is lost: {slot.get('lost_because') or 'it cannot be read any more'}",
            remedy="Change the setting that is named, then run `cdc snapshot --all` and `cdc run`: a fresh snapshot"
            " reconciles the replicas.",
        )  # fmt: skip
    elif slot["active_pid"] is None:
        left = slot["seconds_left"]
        urgent = slot["wal_status"] == "unreserved" or (left is not None and left < SOON_SECONDS)
        until = "" if left is None else f"; at the present rate it is lost in {ago(left)}"
        yield Problem(
            "error" if urgent else "warning",
            "slot",
            f"{slot['name']} is read by nobody and keeps WAL on the source's disk{until}",
            remedy="Start the reader: `cdc run`. If it is not needed any more: `cdc drop`.",
        )
    elif (share := _used_share(slot)) > FULL_SHARE:
        held = f"{size(slot['retained_bytes'])} of the {size(slot['limit_bytes'])} that it may hold"
        left = (
            ""
            if slot["seconds_left"] is None
            else f"; if it stood still, it would be lost in {ago(slot['seconds_left'])}"
        )
        yield Problem(
            "error" if slot["wal_status"] == "unreserved" else "warning",
            "slot",
            f"{slot['name']} keeps {held} ({share:.0%}){left}",
            remedy="See what holds the reader up (below), and for long transactions at the source (pg_stat_activity);"
            " raise max_slot_wal_keep_size meanwhile.",
        )


def _used_share(slot: Mapping[str, Any]) -> float:
    """How much of what the slot may hold it does; 0 where nothing limits it."""
    if slot["limit_bytes"] is None:
        return 0.0
    return float(slot["retained_bytes"] / slot["limit_bytes"]) if slot["limit_bytes"] > 0 else 1.0


def _transport(status: Mapping[str, Any]) -> Iterator[Problem]:
    transport = status["transport"]
    if not transport["reachable"]:
        yield Problem("error", "transport", _why_not(transport["reason"]), remedy=transport["remedy"])

    memory = status["memory"]
    if memory is not None and memory["is_short"]:
        used = f"{size(memory['used_bytes'])} of maxmemory {size(memory['limit_bytes'])}"
        yield Problem(
            "warning", "transport", f"Redis uses {used}: entries go as soon as all have read them{_largest(status)}",
            remedy=f"CONFIG SET maxmemory {2 * memory['limit_bytes']}, or have who is behind read on.",
        )  # fmt: skip


def _why_not(reason: str) -> str:
    """Why a server cannot be asked; one that does not answer is not told to do so twice."""
    silent = "Redis does not answer: "
    return (
        f"does not answer: {reason.removeprefix(silent)}" if reason.startswith(silent) else f"cannot be used: {reason}"
    )


def _largest(status: Mapping[str, Any]) -> str:
    """Who has most to read yet."""
    unread = [(reader["bytes"], reader, stream) for stream in status["streams"] for reader in stream["readers"]]
    size_bytes, reader, stream = max(unread, key=lambda found: int(found[0]), default=(0, None, None))
    if reader is None or stream is None or not size_bytes:
        return ""
    kind = "external group" if reader["external"] else "sink"
    return f"; most of what is unread is that of {kind} {reader['name']} in {stream['key']} ({size(size_bytes)})"


def _streams(status: Mapping[str, Any]) -> Iterator[Problem]:
    for stream in status["streams"]:
        for reader in stream["readers"]:
            name = reader["name"]
            gone = f"If it is gone for good: `cdc forget {name}`."
            if reader["passed"]:
                yield Problem(
                    "warning", f"sink {name}",
                    f"was more than transport.max_backlog_bytes behind in {stream['key']} and was trimmed past",
                    remedy=f"Start it, `cdc-sink run {name}`: it takes a snapshot. {gone}",
                )  # fmt: skip
            elif reader["external"] and name in stream["held_back_by"]:
                yield Problem(
                    "warning", f"group {name}",
                    f"is not one of our sinks and holds back {reader['entries']:,} entries of {stream['key']}"
                    f" ({size(reader['bytes'])}) that would go without it",
                    remedy=f"Have it read on and acknowledge. {gone}",
                )  # fmt: skip


def _reader(status: Mapping[str, Any]) -> Iterator[Problem]:
    reader = status["reader"]
    if not status["transport"]["reachable"]:
        return
    if reader is None:
        yield Problem("warning", "reader", "has never run", remedy="Start it: `cdc run`.")
        return
    yield from _process("reader", reader, status["at"], "Start it again: `cdc run`.")
    if untrimmed := reader.get("untrimmed"):
        yield Problem("error", "reader", f"does not trim streams: {untrimmed['reason']}", remedy=untrimmed["remedy"])
    if unconfirmed := reader.get("unconfirmed"):
        what = f"confirms nothing to the source: {unconfirmed['reason']}"
        yield Problem("error", "reader", what, remedy=unconfirmed["remedy"])


def _events(status: Mapping[str, Any]) -> Iterator[Problem]:
    for event in status.get("events", ()):
        if event["state"] == "stopped":
            what = f"is stopped, all others go on: {event['reason']}"
            yield Problem("error", f"event {event['event']}", what, event["since"], event["remedy"])


def _snapshots(status: Mapping[str, Any]) -> Iterator[Problem]:
    for run in status.get("unreadable", ()):
        yield Problem("error", "reader", run["what"], remedy=run["remedy"])
    for event in status.get("parked", ()):
        what, remedy = what_is_parked(event)
        yield Problem("error", f"event {event['event']}", what, event["since"], remedy)
    for run in status["snapshots"]:
        if run["state"] == "refused":
            yield Problem(
                "warning", "reader", f"refused a snapshot of {run['event']} where {run['where']}: {run['reason']}",
                run["finished_at"], remedy="Ask again with `cdc snapshot EVENT --where SQL`, which says what it takes.",
            )  # fmt: skip


def _sinks(status: Mapping[str, Any]) -> Iterator[Problem]:
    for sink in status["sinks"]:
        part, at_work = f"sink {sink['name']}", is_alive(sink, status["at"])
        yield from _process(part, sink, status["at"], f"Start it again: `cdc-sink run {sink['name']}`.")
        if sink.get("dead"):
            events = "1 event is" if sink["dead"] == 1 else f"{sink['dead']:,} events are"
            yield Problem(
                "warning", part, f"{events} parked", remedy=f"Look at them: `cdc-sink dead {sink['name']} list`."
            )
        for label in sink.get("gone", []):
            what = f"maps {label}, which {published.NOT_PUBLISHED}"
            yield Problem("warning", part, what, remedy=published.remedy(sink["name"]))
        if at_work and not sink.get("reason") and (sink.get("lag_seconds") or 0) > BEHIND_SECONDS:
            what = f"is {ago(sink['lag_seconds'])} behind"
            yield Problem("warning", part, what, remedy="Look at the load and the locks of its target database.")


def _process(part: str, state: Mapping[str, Any], now: float, start: str) -> Iterator[Problem]:
    """What the state of a process says of it."""
    reason = state.get("reason")
    if state["state"] == "stopped":
        if reason:
            yield Problem("error", part, f"stopped: {reason}", state["since"], state["remedy"])
        else:
            yield Problem("warning", part, "was stopped", state["since"], start)
    elif not is_alive(state, now):
        yield Problem("error", part, f"gave no sign of life, last {state['state']}", state.get("alive_at"), start)
    elif reason and state["state"] not in _AT_WORK:
        yield Problem("warning", part, f"{state['state']}: {reason}", state["since"], state["remedy"])
