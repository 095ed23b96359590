"""Commands that ask something of a pipeline: a snapshot, or its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.errors import AccessDenied
from cdc.replication import SlotHeld
from cdc.snapshot.run import Run
from cdc.source.connection import Source
from cdc.source.publication import drop_publication
from cdc.source.slot import drop_slot, find_slot
from cdc.transport import connect
from transforms.config import ConfigurationError
from transforms.errors import EXIT_DONE, EXIT_INTERRUPTED
from transforms.keys import Keys
from transforms.names import quote_identifier

POLL_SECONDS = 0.2


def request_snapshot(
    config: ReaderConfig,
    names: Sequence[str],
    sink: str | None,
    *,
    wait: bool,
    stop: threading.Event,
    say: Callable[[str], None],
) -> int:
    """Ask the reader to publish events again; no names mean all. Raises ConfigurationError for an unknown name."""
    labels = _labels(config, names)
    with connect(config.transport.address) as client:
        control = Control(client, Keys(config.pipeline.name))
        ids = control.request_snapshot(labels, sink)
        say(f"asked for {', '.join(labels)}" + (f" for sink {sink}" if sink else ""))
        waiting = dict(zip(ids, labels, strict=True)) if wait else {}
        seen: dict[str, Run] = {}
        while waiting:
            if stop.wait(POLL_SECONDS):
                say("not waiting any longer; the snapshot goes on")
                return EXIT_INTERRUPTED
            there = {run.id: run for run in control.runs()}
            for run_id, label in list(waiting.items()):
                run = there.get(run_id)
                if run is not None:
                    seen[run_id] = run
                if run_id in seen and (run is None or run.state == "done"):  # a later run removes one that is done
                    say(f"published {label}: {seen[run_id].rows} rows")
                    del waiting[run_id]
    return EXIT_DONE


def pause_snapshots(config: ReaderConfig, *, paused: bool, say: Callable[[str], None]) -> None:
    """Have the reader make no snapshots until they are resumed; what is finished of them stays so."""
    with connect(config.transport.address) as client:
        Control(client, Keys(config.pipeline.name)).pause_snapshots(time.time() if paused else None)
    say("snapshots pause until `cdc snapshot --resume`; changes flow on" if paused else "snapshots go on")


def _labels(config: ReaderConfig, names: Sequence[str]) -> list[str]:
    """The labels that names of events, types or versioned types stand for."""
    if not names:
        return [event.label for event in config.events]
    labels: list[str] = []
    for name in names:
        found = [event.label for event in config.events if name in (event.name, event.label, event.type)]
        if not found:
            known = ", ".join(event.name for event in config.events)
            raise ConfigurationError([f"there is no event {name} (there are: {known})"])
        labels += found
    return list(dict.fromkeys(labels))


def drop(config: ReaderConfig, *, say: Callable[[str], None]) -> None:
    """Remove slot, publication and the pipeline's keys. Replica tables stay."""
    source = Source(config.source.address, config.application_name)
    try:
        slot = find_slot(source, config.source.slot)
        if slot is not None and slot.active_pid is not None:
            raise SlotHeld(
                f"slot {config.source.slot} is being read (by PID {slot.active_pid})", remedy="Stop the reader first."
            )
        drop_slot(source, config.source.slot)
        say(f"dropped slot {config.source.slot}")
        try:
            drop_publication(source, config.publication)
            say(f"dropped publication {config.publication}")
        except AccessDenied:  # the tables' owner made it, so that this role owns nothing
            say(f"left to its owner: DROP PUBLICATION {quote_identifier(config.publication)};")
    finally:
        source.close()
    with connect(config.transport.address) as client:
        count = Control(client, Keys(config.pipeline.name)).drop()
    say(f"removed {count} keys {config.pipeline.name}:*")
