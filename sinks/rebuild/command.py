"""`cdc-sink rebuild`: asks the sink's worker for a rebuild, follows it, calls it off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sinks.checkpoint import Checkpoints
from sinks.children.shape import keep_apart
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.errors import AccessDenied, DataRefused, RebuildFailed, RebuildRefused, TargetRefused
from sinks.postgres import Database
from sinks.privileges import require
from sinks.rebuild.parts import parts_of
from sinks.rebuild.record import Record, Records
from sinks.rebuild.shadow import make, require_free_way, shadow_name
from sinks.replica import examine
from sinks.transport import connect
from transforms.config import ConfigurationError
from transforms.errors import EXIT_DIFFERENCE, EXIT_DONE, EXIT_INTERRUPTED
from transforms.keys import Keys
from transforms.names import EVENT_LABEL, event_label, identifier_problem
from transforms.schema import SchemaDocument

POLL_SECONDS = 0.5
TELL_SECONDS = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked for besides the event."""

    keep_as: str | None = None
    drop_columns: bool = False


class RebuildCommand:
    """Works on the rebuilds of one sink, beside its worker. Methods raise StatecastError."""

    def __init__(self, config: SinkConfig, event: str) -> None:
        """Raises ConfigurationError for an event that the sink does not map."""
        self._config = config
        self._label = _label(config, event)
        self._table = config.tables[self._label]
        self._database = Database(config.address, f"cdc-sink rebuild {config.name}")
        self._records = Records(self._database, config.pipeline.name, config.name)
        self._checkpoints = Checkpoints(self._database, config.pipeline.name, config.name, "")
        self._database.connect()

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    def ask(self, wishes: Wishes, say: Say) -> int:
        """Have the worker rebuild the table, or join a rebuild under way; returns its id."""
        if wishes.keep_as is not None and (problem := identifier_problem(wishes.keep_as)) is not None:
            raise ConfigurationError([f"--keep-old: {problem}"])
        document = self._document()
        self._checkpoints.make_schema()
        with self._database.transaction():
            if (going_on := self._in_hand()) is not None:
                return self._join(going_on, wishes, say)
            record = Record.wanted(
                self._table, self._label, shadow_name(self._table), wishes.keep_as, drop_columns=wishes.drop_columns
            )
            self._rehearse(record, document)
            id_ = self._records.add(record)
            is_at_work = self._checkpoints.is_at_work()
        say(f"asked for: {self._table} is filled anew as {record.shadow}, which then takes its place")
        for part, _ in parts_of(self._config, record, document)[1:]:
            say(f"with it: {part.table}, as {part.shadow}")
        if not is_at_work:
            say(f"no worker of sink {self._config.name} is at work: start `cdc-sink run {self._config.name}`")
        return id_

    def call_off(self, say: Say) -> int:
        """Have the table stay as it is; returns the exit code."""
        with self._database.transaction():
            record = self._in_hand() if self._checkpoints.schema_exists() else None
            if record is None:
                say(f"{self._table} is not being rebuilt")
                return EXIT_DIFFERENCE
            self._records.give_up(record, "called off")
        say(f"called off: {self._table} stays as it is, {record.shadow} is dropped")
        if record.frozen:
            say(f"it has missed changes, which a snapshot brings once it fits: `cdc-sink check {self._config.name}`")
        return EXIT_DONE

    def follow(self, id_: int, stop: threading.Event, say: Say) -> int:
        """Tell how far it is until it has ended; returns the exit code. Raises RebuildFailed."""
        told, told_at = ("asked", ""), time.monotonic()
        while True:
            with self._database.transaction():
                record = self._records.find(id_)
            if record is None or record.state == "called off":
                say(f"called off: {self._table} is as it was")
                return EXIT_DIFFERENCE
            if record.state == "failed":
                raise RebuildFailed(f"{self._table} is not rebuilt: {record.reason}", self._label)
            if record.state == "done":
                say(f"done: {self._table} is rebuilt, {record.rows:,} rows were written")
                return EXIT_DONE
            news = record.state, record.reason or ""
            if news != told or time.monotonic() - told_at >= TELL_SECONDS:
                say(str(record))
                told, told_at = news, time.monotonic()
            if stop.wait(POLL_SECONDS):
                say("not waiting any longer; the rebuild goes on")
                return EXIT_INTERRUPTED

    def _document(self) -> SchemaDocument:
        client = connect(self._config.transport.address)
        control = Control(client, Keys(self._config.pipeline.name), self._config.name)
        try:
            documents = control.documents([self._label])
        finally:
            control.close()
        if self._label not in documents:
            raise RebuildRefused(
                f"no schema document is published of {self._label}", remedy="Start the reader: `cdc run`."
            )
        return keep_apart(self._config, documents)[self._label]

    def _in_hand(self) -> Record | None:
        return next((record for record in self._records.in_hand(hold=True) if record.table == self._table), None)

    def _join(self, record: Record, wishes: Wishes, say: Say) -> int:
        if wishes != Wishes(record.keep_as, record.drop_columns):
            raise RebuildRefused(
                f"{self._table} is being rebuilt already, as it was asked for before",
                remedy=f"Call it off, `cdc-sink rebuild {self._config.name} {self._label} --call-off`, and ask again.",
            )
        say(f"{self._table} is being rebuilt already: {record}")
        return record.id

    def _rehearse(self, record: Record, document: SchemaDocument) -> None:
        """Find out now what the worker would find out: make the shadow, and unmake it."""
        parts, sink = parts_of(self._config, record, document), self._config.name
        for part, of_part in parts:
            found = examine(self._database, part.event, part.table, of_part)
            if not found.exists or found.owner != (self._config.pipeline.name, sink, part.event):
                raise RebuildRefused(
                    f"{part.table} is not a replica of {part.event} that sink {sink} keeps",
                    remedy=f"Start `cdc-sink run {sink}`, which makes it; `cdc-sink check` tells whose it is.",
                )
            require(self._database, [part.shadow], make=True)
            require_free_way(self._database, part, found)
        self._database.execute(b"SAVEPOINT rehearsal")
        try:
            for part, of_part in parts:
                make(self._database, part, of_part)
        except (AccessDenied, DataRefused, TargetRefused) as error:
            raise RebuildRefused(
                f"{self._table} cannot be rebuilt: {error}", remedy="Change what the server names, then ask again."
            ) from error
        self._database.execute(b"ROLLBACK TO SAVEPOINT rehearsal")


def _label(config: SinkConfig, event: str) -> str:
    """The event's label, from `customer` or `customer.v2`."""
    parts = EVENT_LABEL.fullmatch(event)
    label = event_label(parts["type"], int(parts["version"] or 1)) if parts else event
    if label in config.tables:
        return label
    versions = [known for known in config.tables if known.startswith(f"{event}.v")]
    if len(versions) == 1:
        return versions[0]
    raise ConfigurationError([f"sink {config.name} maps no event {event} (it maps {', '.join(config.tables)})"])
