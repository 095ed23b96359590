"""What `cdc status` tells: where source, reader, streams, sinks and snapshots stand. With one server down, the rest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.diagnosis import is_alive, problems
from cdc.growth import Growth
from cdc.known import Known
from cdc.parked_report import parked_report
from cdc.retention.report import stream_reports
from cdc.retention.streams import Streams
from cdc.sink_lag import sink_reports
from cdc.source.connection import Source
from cdc.source.slot import find_slot
from cdc.source.write_ahead_log import insert_position
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import LSN

SAMPLE_SECONDS = 1.0
"""How long the source's log is watched where no reader has done so."""
OLD_SECONDS = 3600.0
"""Where no reader has watched the log for so long, its mean growth may tell nothing of what goes on now."""


def collect(config: ReaderConfig) -> dict[str, Any]:
    """The status as JSON has it; `complete` tells whether both servers answered."""
    now = time.time()
    source, log_end = _source(config, _stored_growth(config))
    transport: dict[str, Any] = {
        "memory": None,
        "reader": None,
        "standbys": [],
        "streams": [],
        "sinks": [],
        "snapshots": [],
        "events": [],
        "parked": [],
        "unreadable": [],
    }
    problem = None
    try:
        with connect(config.transport.address) as client:
            keys = Keys(config.pipeline.name)
            end = None if log_end is None else log_end.position
            transport = _transport(Control(client, keys), Streams(client, keys), config, end, now)
    except StatecastError as error:
        problem = {"reason": str(error), "remedy": error.remedy}
    found = {
        "pipeline": config.pipeline.name,
        "at": now,
        "source": source,
        "transport": {"reachable": problem is None, **(problem or {})},
        **transport,
        "complete": problem is None and source["reachable"],
    }
    return found | {"problems": [each.to_dict() for each in problems(found)]}


class LogEnd(NamedTuple):
    """The end of the source's log."""

    position: LSN
    bytes_per_second: float
    """How fast it grows."""


def _stored_growth(config: ReaderConfig) -> Growth | None:
    """How fast the log grew while a reader watched it; None: nobody knows."""
    try:
        with connect(config.transport.address) as client:
            reader = Control(client, Keys(config.pipeline.name)).read_status()
    except StatecastError:  # which is told where the rest is read
        return None
    return None if reader is None else Growth.read(reader.get("growth"))


def _log_end(source: Source, growth: Growth | None) -> LogEnd:
    """Where the log ends, and its growth: as the reader has watched it up to now, or else as it is in this moment."""
    position, now = insert_position(source), time.time()
    if growth is None or not (since := growth.noted(now, position)).is_known:
        return LogEnd(position, _momentary(source, position))
    if now - growth.at > OLD_SECONDS:
        return LogEnd(position, max(since.bytes_per_second, _momentary(source, position)))
    return LogEnd(position, since.bytes_per_second)


def _momentary(source: Source, position: LSN) -> float:
    began = time.monotonic()
    time.sleep(SAMPLE_SECONDS)
    return (insert_position(source) - position) / (time.monotonic() - began)


def _source(config: ReaderConfig, growth: Growth | None) -> tuple[dict[str, Any], LogEnd | None]:
    try:
        source = Source(config.source.address, config.application_name + "_status")
    except StatecastError as error:
        return {"reachable": False, "slot": None, "reason": str(error), "remedy": error.remedy}, None
    try:
        slot = find_slot(source, config.source.slot)
        log_end = _log_end(source, growth)
    finally:
        source.close()
    if slot is None:
        return {"reachable": True, "slot": None}, log_end
    return {
        "reachable": True,
        "slot": {
            "name": config.source.slot,
            "confirmed": str(slot.confirmed),
            "retained_bytes": slot.retained_bytes,
            "limit_bytes": None if slot.safe_bytes is None else slot.retained_bytes + slot.safe_bytes,
            "seconds_left": seconds_left(slot.safe_bytes, log_end.bytes_per_second),
            "wal_bytes_per_second": log_end.bytes_per_second,
            "wal_status": slot.wal_status,
            "lost_because": slot.lost_because,
            "active_pid": slot.active_pid,
        },
    }, log_end


def seconds_left(safe_bytes: int | None, bytes_per_second: float | None) -> float | None:
    """How long the slot lives if it stands still from now on and the log grows as it does; None: for ever."""
    if safe_bytes is None or not bytes_per_second:
        return None
    return max(0.0, safe_bytes / bytes_per_second)


def _transport(control: Control, streams: Streams, config: ReaderConfig, end: LSN | None, now: float) -> dict[str, Any]:
    state = control.state([event.stream for event in config.events])
    reader = control.read_status()
    if reader is not None:
        reader["alive"] = is_alive(reader, now)
        reader["published"] = str(state.published)
        reader["lag_bytes"] = None if end is None else max(0, end - state.published)
        reader["lag_seconds"] = None if end is None else lag_seconds(reader, now)
    memory = streams.memory()
    reports = stream_reports(streams, control, state, config, memory, now)
    known_runs, unreadable = control.examine_runs()
    runs = [
        {
            name: getattr(run, name)
            for name in ("id", "event", "where", "related", "state", "rows", "share", "to", "reason", "finished_at")
        }
        for run in known_runs
    ]
    known = Known.parse(state.meta)
    return {
        "memory": {"used_bytes": memory.used, "limit_bytes": memory.limit or None, "is_short": memory.is_short},
        "reader": reader,
        "standbys": control.standby_statuses(),
        "streams": reports,
        "sinks": sink_reports(control, state.published, reports, known.events, now),
        "snapshots": runs,
        "events": _events(config, known),
        "parked": parked_report(control.parked()),
        "unreadable": [{"what": str(run), "remedy": run.remedy} for run in unreadable],
    }


def _events(config: ReaderConfig, known: Known) -> list[dict[str, Any]]:
    """How it stands with each event of the configuration."""
    found: list[dict[str, Any]] = []
    for event in config.events:
        stop = known.stopped.get(event.label)
        state = "stopped" if stop else "published" if event.label in known.mapped else "not published yet"
        told = {name: getattr(stop, name, None) for name in ("reason", "remedy", "since")}
        found.append({"event": event.label, "state": state, **told})
    return found


def lag_seconds(reader: Mapping[str, Any], now: float) -> float:
    """For how long at least there has been log that is not published: as the reader knows it, or since it fell silent.

    The log's present rate does not tell it: a source that has come to rest writes next to nothing.
    """
    if not reader["lag_bytes"]:
        return 0.0
    return float(max(0.0, now - (reader.get("behind_since") or reader["alive_at"])))
