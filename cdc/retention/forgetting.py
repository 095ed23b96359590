"""`cdc forget NAME`: a sink or consumer group that is gone for good holds nothing back any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.diagnosis import FRESH_SECONDS, is_alive
from cdc.errors import TransportError
from cdc.retention.streams import StreamName, Streams, names_of
from cdc.transport import connect
from transforms.config import NAMED_WRONG, ConfigurationError
from transforms.keys import Keys


class StillThere(TransportError):
    """Who is to be forgotten is at work."""

    remedy = "Stop it first. If it is stopped already: wait ten seconds and try again."


class _Found(NamedTuple):
    """Somebody, and the streams in which he has a place."""

    is_sink: bool
    streams: list[StreamName]


def forget(config: ReaderConfig, who: str, *, say: Callable[[str], None]) -> None:
    """Drop a sink or group. Raises ConfigurationError where there is none of this name, StillThere, TransportError."""
    keys = Keys(config.pipeline.name)
    with connect(config.transport.address) as client:
        control, streams = Control(client, keys), Streams(client, keys)
        found = _find(control, streams, config, who)
        for status in control.sink_statuses():
            if status["name"] == who and is_alive(status, time.time()):
                raise StillThere(f"sink {who} is at work")
        for name in found.streams:
            if not found.is_sink and streams.is_read_now(name, who, FRESH_SECONDS):
                raise StillThere(f"consumer group {who} is read from in {keys.stream(*name)}")
        streams.forget(who, found.streams)
        places = ", ".join(keys.stream(*name) for name in found.streams) or "no stream"
    say(f"forgot {'sink' if found.is_sink else 'consumer group'} {who}: it held a place in {places}")


def _find(control: Control, streams: Streams, config: ReaderConfig, who: str) -> _Found:
    state = control.state([event.stream for event in config.events])
    sinks = streams.sinks()
    places: dict[str, list[StreamName]] = {sink.name: [] for sink in sinks}
    for name in names_of(state):
        for group in streams.groups(name):
            places.setdefault(group, []).append(name)
    if who not in places:
        known = ", ".join(sorted(places)) or "none"
        raise ConfigurationError([f"there is no sink or group {who} (there are: {known})"], remedy=NAMED_WRONG)
    return _Found(who in {sink.name for sink in sinks}, places[who])
