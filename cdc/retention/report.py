"""What `cdc status` tells of the streams: how large they are, who has not read what, and who holds entries back."""

from __future__ import annotations

from typing import Any

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.retention.entry_trail import EntryTrail
from cdc.retention.judging import Backlog, Memory, Rules, StreamSeen, backlogs_of, judge
from cdc.retention.streams import Streams, names_of
from cdc.transport import TransportState


def stream_reports(
    streams: Streams, control: Control, state: TransportState, config: ReaderConfig, memory: Memory, now: float
) -> list[dict[str, Any]]:
    """One for each stream of the present epoch, and for earlier ones that somebody has not read to their ends."""
    sinks, passed, trails = streams.sinks(), streams.passed(), streams.trails()
    reports = []
    for name in sorted(names_of(state)):
        seen = streams.look(name, sinks, passed)
        if seen is None:
            if name.epoch == state.epoch:
                reports.append(control.stream_info(*name) | {"held_by": [], "held_back_by": [], "readers": []})
            continue
        trail = trails.get(seen.key) or EntryTrail()
        trail.note(seen.last, seen.added)
        backlogs = backlogs_of(seen, trail)
        if name.epoch == state.epoch or any(backlog.entries for backlog in backlogs):
            young = streams.younger_than(seen, now - config.transport.retain.total_seconds())
            rules = Rules(config.transport.max_backlog_bytes, config.transport.laggard)
            judgement = judge(seen, backlogs, rules, confirmed=None, young=young, memory_is_short=memory.is_short)
            reports.append(_report(seen, backlogs, judgement.held_by))
    return reports


def _report(seen: StreamSeen, backlogs: list[Backlog], holding: tuple[Backlog, ...]) -> dict[str, Any]:
    return {
        "key": seen.key,
        "entries": seen.length,
        "bytes": seen.size_bytes,
        "last_id": str(seen.last),
        "held_by": [backlog.holder.name for backlog in backlogs if backlog.entries],
        "held_back_by": [backlog.holder.name for backlog in holding],
        "readers": [
            {
                "name": holder.name,
                "external": not holder.is_sink,
                "position": str(holder.position),
                "entries": entries,
                "bytes": size_bytes,
                "passed": holder.is_passed,
            }
            for holder, entries, size_bytes in backlogs
        ],
    }
