"""How far behind a sink is, seen from the streams.

What a sink says of itself is as old as its last sign of life, and one that waits for its database, or has ended, says
nothing new: so where it stands in each stream is held against where the stream ends now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cdc.control import Control
from cdc.diagnosis import is_alive
from cdc.watch import held_position
from transforms.position import LSN, Position


def sink_reports(
    control: Control, published: LSN, streams: Sequence[Mapping[str, Any]], mapped: Mapping[str, int], now: float
) -> list[dict[str, Any]]:
    """The states of all sinks, with their lags as they are, and what they map that is `gone`. Raises TransportError.

    `streams`: reports with `key` and `last_id`, read after `published`. `mapped`: the events that are published now.
    """
    ends = {stream["key"].partition(":")[2]: Position.parse(stream["last_id"]) for stream in streams}
    sinks = control.sink_statuses()
    published_once = control.schemas().keys() if sinks else set[str]()
    gone = published_once - mapped.keys() if mapped else set[str]()
    return [
        _with_lag(sink, control, published, ends, now) | {"gone": sorted(gone & set(sink.get("events", [])))}
        for sink in sinks
    ]


def _with_lag(
    sink: dict[str, Any], control: Control, published: LSN, ends: Mapping[str, Position], now: float
) -> dict[str, Any]:
    places = {name: Position.parse(place) for name, place in sink.get("streams", {}).items()}
    if not sink.get("applied_lsn") or not places or places.keys() - ends.keys():  # it has not begun these streams
        return sink
    held = held_position(sink, published, ends)
    if held is None or held >= published:
        return sink | {"lag_bytes": 0, "lag_seconds": 0.0}
    if is_alive(sink, now) and not sink.get("reason"):
        return sink
    left = [control.committed_behind(name, place) for name, place in places.items() if place < ends[name]]
    oldest = min((committed for committed in left if committed is not None), default=now)
    return sink | {"lag_bytes": published - held, "lag_seconds": max(0.0, now - oldest)}
