"""What is wrong, worst first, judged from the figures that `cdc status` collects: what, since when, why, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cdc.wording import ago

Severity = Literal["error", "warning"]

FRESH_SECONDS = 10.0
"""A status that is older belongs to a process that is gone, or hangs."""
SOON_SECONDS = 6 * 3600.0
"""A slot that nobody reads is an error, and no warning any more, when it has less than this left."""
BEHIND_SECONDS = 60.0
"""From this lag on a sink that works is worth a warning."""


_AT_WORK = ("streaming", "snapshotting", "standby")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that wants a person."""

    severity: Severity
    part: str
    """`source`, `slot`, `reader`, `transport`, or a sink's name."""
    what: str
    since: float | None = None
    """Seconds since 1970."""
    remedy: str | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def problems(status: Mapping[str, Any]) -> list[Problem]:
    """All there are, errors first; empty when all is well."""
    found = [*_source(status), *_transport(status), *_reader(status), *_sinks(status)]
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
            "error", "slot", f"{slot['name']} is lost: Postgres removed WAL that it still needed",
            remedy="Run `cdc snapshot --all`, then `cdc run`: a fresh snapshot reconciles the replicas."
            " Raise max_slot_wal_keep_size before.",
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


def _transport(status: Mapping[str, Any]) -> Iterator[Problem]:
    transport = status["transport"]
    if not transport["reachable"]:
        yield Problem("error", "transport", f"does not answer: {transport['reason']}", remedy=transport["remedy"])


def _reader(status: Mapping[str, Any]) -> Iterator[Problem]:
    reader = status["reader"]
    if not status["transport"]["reachable"]:
        return
    if reader is None:
        yield Problem("warning", "reader", "has never run", remedy="Start it: `cdc run`.")
        return
    yield from _process("reader", reader, status["at"], "Start it again: `cdc run`.")


def _sinks(status: Mapping[str, Any]) -> Iterator[Problem]:
    for sink in status["sinks"]:
        part, at_work = f"sink {sink['name']}", is_alive(sink, status["at"])
        yield from _process(part, sink, status["at"], f"Start it again: `cdc-sink run {sink['name']}`.")
        if sink.get("dead"):
            events = "1 event is" if sink["dead"] == 1 else f"{sink['dead']:,} events are"
            yield Problem(
                "warning", part, f"{events} parked", remedy=f"Look at them: `cdc-sink dead {sink['name']} list`."
            )
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
