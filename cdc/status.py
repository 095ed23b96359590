"""`cdc status`: where source, reader, streams, sinks and snapshots stand. With one server down the rest is shown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.opening import application_name
from cdc.source import Source
from cdc.transport import connect
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import LSN

FRESH_SECONDS = 10.0
"""A status that is older belongs to a process that is gone, or hangs."""


def collect(config: ReaderConfig) -> dict[str, Any]:
    """The status as JSON has it; `complete` tells whether both servers answered."""
    now = time.time()
    source, insert = _source(config)
    transport: dict[str, Any] = {"reader": None, "streams": [], "sinks": [], "snapshots": []}
    problem = None
    try:
        with connect(config.transport.address) as client:
            transport = _transport(Control(client, Keys(config.pipeline.name)), config, insert, now)
    except StatecastError as error:
        problem = {"reason": str(error), "remedy": error.remedy}
    return {
        "pipeline": config.pipeline.name,
        "at": now,
        "source": source,
        "transport": {"reachable": problem is None, **(problem or {})},
        **transport,
        "complete": problem is None and source["reachable"],
    }


def _source(config: ReaderConfig) -> tuple[dict[str, Any], LSN | None]:
    try:
        source = Source(config.source.address, application_name(config.pipeline.name) + "_status")
    except StatecastError as error:
        return {"reachable": False, "slot": None, "reason": str(error), "remedy": error.remedy}, None
    try:
        slot = source.slot(config.source.slot)
        insert = source.insert_position()
    finally:
        source.close()
    if slot is None:
        return {"reachable": True, "slot": None}, insert
    return {
        "reachable": True,
        "slot": {
            "name": config.source.slot,
            "confirmed": str(slot.confirmed),
            "retained_bytes": slot.retained_bytes,
            "limit_bytes": None if slot.safe_bytes is None else slot.retained_bytes + slot.safe_bytes,
            "seconds_left": None,
            "wal_status": slot.wal_status,
            "active_pid": slot.active_pid,
        },
    }, insert


def _transport(control: Control, config: ReaderConfig, insert: LSN | None, now: float) -> dict[str, Any]:
    state = control.state([event.stream for event in config.events])
    reader = control.read_status()
    if reader is not None:
        reader["alive"] = now - reader["alive_at"] < FRESH_SECONDS and reader["state"] != "stopped"
        reader["lag_bytes"] = None if insert is None else max(0, insert - state.published)
        reader["lag_seconds"] = _lag_seconds(reader, now)
    streams = [control.stream_info(stream, state.epoch) for stream in sorted(state.stream_ends)]
    runs = [
        {"id": run.id, "event": run.event, "state": run.state, "rows": run.rows, "share": run.share, "to": run.to}
        for run in control.runs()
    ]
    return {"reader": reader, "streams": streams, "sinks": control.sink_statuses(), "snapshots": runs}


def _lag_seconds(reader: Mapping[str, Any], now: float) -> float | None:
    """How old the change is that was delivered last, while there are newer ones."""
    if reader["lag_bytes"] is None or not reader.get("delivered_at"):
        return None
    return max(0.0, now - reader["delivered_at"]) if reader["lag_bytes"] else 0.0


def lines(status: Mapping[str, Any]) -> list[str]:
    """The status for people."""
    return [
        f"pipeline   {status['pipeline']}",
        *_source_lines(status["source"]),
        *_transport_lines(status),
    ]


def _source_lines(source: Mapping[str, Any]) -> list[str]:
    if not source["reachable"]:
        return [f"source     unreachable: {source['reason']}", f"           {source['remedy']}"]
    slot = source["slot"]
    if slot is None:
        return ["source     reachable; there is no slot yet (`cdc run` makes it)"]
    limit = "no limit" if slot["limit_bytes"] is None else f"limit {_size(slot['limit_bytes'])}"
    reader = f"read by PID {slot['active_pid']}" if slot["active_pid"] else "read by nobody"
    return [
        f"source     slot {slot['name']} confirmed {slot['confirmed']}, {reader}",
        f"           holds {_size(slot['retained_bytes'])} of WAL ({limit}), {slot['wal_status']}",
    ]


def _transport_lines(status: Mapping[str, Any]) -> list[str]:
    transport, reader = status["transport"], status["reader"]
    if not transport["reachable"]:
        return [f"transport  unreachable: {transport['reason']}", f"           {transport['remedy']}"]
    found = []
    if reader is None:
        found.append("reader     has never run")
    else:
        alive = "" if reader["alive"] or reader["state"] == "stopped" else f", silent for {_ago(reader['alive_at'])}"
        behind = "" if reader["lag_bytes"] is None else f", {_size(reader['lag_bytes'])} behind"
        found.append(f"reader     {reader['state']} for {_ago(reader['since'])}{behind}{alive}")
        found += _reason(reader)
    for run in status["snapshots"]:
        found.append(f"snapshot   {run['event']}: {run['state']}, {run['rows']:,} rows, {run['share']:.0%}")
    for stream in status["streams"]:
        held = f", not read to its end by {', '.join(stream['held_by'])}" if stream["held_by"] else ""
        found.append(
            f"stream     {stream['key']}: {stream['entries']:,} entries, {_size(stream['bytes'])},"
            f" last {stream['last_id']}{held}"
        )
    for sink in status["sinks"]:
        alive = sink["state"] == "stopped" or time.time() - sink.get("alive_at", 0) < FRESH_SECONDS
        silent = "" if alive else f", silent for {_ago(sink.get('alive_at', 0))}"
        dead = f", {sink['dead']} parked" if sink.get("dead") else ""
        behind = "" if sink.get("lag_bytes") is None else f", {_size(sink['lag_bytes'])} behind"
        found.append(
            f"sink       {sink['name']}: {sink['state']}, applied {sink.get('applied_lsn')}{behind}{dead}{silent}"
        )
        found += _reason(sink)
    return found


def _reason(part: Mapping[str, Any]) -> list[str]:
    if not part.get("reason"):
        return []
    return [f"           {part['reason']}", f"           remedy: {part['remedy']}"]


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError


def _ago(since: float) -> str:
    seconds = max(0, int(time.time() - since))
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"
