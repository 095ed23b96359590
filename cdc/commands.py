"""Commands that ask something of a pipeline: a snapshot, or its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.diagnosis import is_alive
from cdc.errors import AccessDenied
from cdc.known import Known
from cdc.mapping import Shapes
from cdc.replication import SlotHeld
from cdc.snapshot.choosing import only_where
from cdc.snapshot.run import Run
from cdc.snapshot.subject import Subject
from cdc.source.connection import Source
from cdc.source.publication import drop_publication
from cdc.source.slot import drop_slot, find_slot
from cdc.source.tables import describe_tables
from cdc.transport import connect
from cdc.wording import counted
from transforms.condition.refusal import ConditionRefused, excerpt
from transforms.config import NAMED_WRONG, ConfigurationError
from transforms.errors import EXIT_DONE, EXIT_INTERRUPTED, StatecastError
from transforms.keys import Keys
from transforms.names import quote_identifier

POLL_SECONDS = 0.2


class SnapshotRefused(StatecastError):
    """The reader does not make a snapshot that was asked for, though the command found it right."""

    remedy = "Ask again: the event's columns were others when the reader looked at the condition."


class EventNotPublished(StatecastError):
    """A snapshot was asked for of an event that the running reader does not know."""

    remedy = "Start the reader again with this configuration: it takes a snapshot of an event that is new by itself."


def request_snapshot(
    config: ReaderConfig,
    names: Sequence[str],
    sink: str | None,
    where: str | None,
    *,
    wait: bool,
    stop: threading.Event,
    say: Callable[[str], None],
) -> int:
    """Ask the reader to publish events again, or the rows of them that meet a condition; no names mean all.

    Raises ConfigurationError for an unknown name, ConditionRefused, SnapshotRefused.
    """
    labels = _labels(config, names)
    with connect(config.transport.address) as client:
        control = Control(client, Keys(config.pipeline.name))
        stopped = Known.parse(control.state([]).meta).stopped
        if labels and set(labels) <= stopped.keys():
            raise stopped[labels[0]].error(labels[0])
        if where is not None:
            _check_condition(config, control, [label for label in labels if label not in stopped], where)
        asked = control.request_snapshot(labels, sink, where)
        rows = "" if where is None else f" where {excerpt(where)}"
        say(f"asked for {', '.join(labels)}{rows}" + (f" for sink {sink}" if sink else ""))
        for label in (waits := [label for label in labels if label in stopped]):
            say(f"{label} is stopped: its snapshot is made once it is mended")
        asked = [run for run in asked if run.event not in waits]
        if not wait:
            return EXIT_DONE
        reader = control.read_status()
        if reader is None or not is_alive(reader, time.time()):
            say("no reader is at work: this waits for one to be started with `cdc run`")
        request, serving = asked[0].request, dict[Run, Run]()
        waiting = list(asked)
        while waiting:
            if stop.wait(POLL_SECONDS):
                say("not waiting any longer; the snapshot goes on")
                return EXIT_INTERRUPTED
            taken, there = control.is_taken(request), control.runs()
            over = [run for run in waiting if taken and _is_over(run, there, serving)]
            waiting = [run for run in waiting if run not in over]
            for run in over:
                if run not in serving:
                    say(f"published {run.event}")
                elif serving[run].state != "refused":
                    say(f"published {run.event}: {counted(serving[run].rows, 'row')}")
        if refused := [f"{run.event}: {run.reason}" for run in serving.values() if run.state == "refused"]:
            raise SnapshotRefused("the reader refuses a snapshot of " + "\n".join(refused))
    return EXIT_DONE


def _is_over(asked: Run, there: Sequence[Run], serving: dict[Run, Run]) -> bool:
    """Whether a run that was asked for and taken is over: one that serves it is.

    `serving` keeps which run served it last, for a later run of the event removes one that is over.
    """
    there = [run for run in there if run.event == asked.event]
    if not there:
        raise EventNotPublished(f"the reader that took the request does not publish {asked.event}")
    if found := [run for run in there if run.serves(asked)]:
        serving[asked] = min(found, key=lambda run: run.request)
        return serving[asked].is_over
    return True


def _check_condition(config: ReaderConfig, control: Control, labels: Sequence[str], where: str) -> None:
    """Judge a condition as the reader will, for each event, before anything is asked. Raises ConditionRefused."""
    shapes = Shapes(
        [event for event in config.events if event.label in labels], control.schemas(), config.masking.masks
    )
    problems = []
    with closing(Source(config.source.address, f"{config.application_name}_snapshot")) as source:
        shapes.compare(describe_tables(source, shapes.tables), {}, snapshot=False)
        for label in labels:
            if label in shapes.stopped:
                raise shapes.stopped[label].error(label)
            shape = shapes[label]
            try:
                only_where(source, Subject.of(shape.mapping, shape.document.rev, str.encode, shapes.masks), where)
            except ConditionRefused as error:
                problems.append(f"--where, for event {label}: {error}")
    if problems:
        raise ConditionRefused("\n".join(problems))


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
            raise ConfigurationError([f"there is no event {name} (there are: {known})"], remedy=NAMED_WRONG)
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
