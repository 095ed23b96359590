"""`cdc-sink dead NAME ...`: what a person does with parked events."""

from __future__ import annotations

from collections.abc import Sequence

from sinks.apply import apply_one
from sinks.checkpoint import Checkpoints
from sinks.children.claiming import load_children
from sinks.children.shape import keep_apart, shapes
from sinks.config import SinkConfig
from sinks.control import Control
from sinks.dead_events import ROW_MISSING, DeadEvent, DeadEvents
from sinks.errors import DataRefused, EventUnknown
from sinks.postgres import Database
from sinks.rebuild.record import is_of_shadow
from sinks.replica import examine, load
from sinks.transport import connect
from transforms.keys import Keys


class DeadCommands:
    """Works on the parked events of one sink, beside its worker."""

    def __init__(self, config: SinkConfig) -> None:
        self._config = config
        self._database = Database(config.address, f"cdc-sink dead {config.name}")
        self._events = DeadEvents(self._database, config.pipeline.name, config.name)
        self._database.connect()

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    def all(self) -> list[DeadEvent]:
        """Every parked event, in the order of the source."""
        with self._database.transaction():
            return self._events.all() if self._schema_exists() else []

    def _schema_exists(self) -> bool:
        return Checkpoints(self._database, self._config.pipeline.name, self._config.name, "").schema_exists()

    def show(self, id_: int) -> DeadEvent:
        """One parked event. Raises EventUnknown."""
        for event in self.all():
            if event.id == id_:
                return event
        raise self._unknown(f"there is no parked event {id_}")

    def _unknown(self, message: str) -> EventUnknown:
        return EventUnknown(message, remedy=f"List the parked events with `cdc-sink dead {self._config.name} list`.")

    def drop(self, ids: Sequence[int]) -> int:
        """Forget events; returns how many there were. Their rows stay behind until the next event of their keys."""
        with self._database.transaction():
            return self._events.remove(ids) if self._schema_exists() else 0

    def retry(self, ids: Sequence[int]) -> dict[int, str | None]:
        """Apply events that are still parked: id -> why it is refused again, or None.

        What is still parked has no later full state that was applied, since that would have removed it; so applying it
        now brings its row forward. Raises EventUnknown when an earlier event of the same key is parked as well.
        """
        with self._database.transaction():
            if not self._schema_exists():
                raise self._unknown(f"not parked (any more): {', '.join(map(str, sorted(set(ids))))}")
        client = connect(self._config.transport.address)
        control = Control(client, Keys(self._config.pipeline.name), self._config.name)
        try:
            documents = keep_apart(self._config, control.documents(self._config.tables))
        finally:
            control.close()
        outcome: dict[int, str | None] = {}
        with self._database.transaction(check_at_once=True):
            for stream in sorted({event.stream for event in self._events.of(ids)}):
                self._events.lock_stream(stream)
            events = self._events.of(ids)  # again: the worker may have healed some until it was locked out
            if gone := set(ids) - {event.id for event in events}:
                raise self._unknown(f"not parked (any more): {', '.join(map(str, sorted(gone)))}")
            for event in events:
                if is_of_shadow(event.type):
                    raise EventUnknown(
                        f"event {event.id} is of the table that a rebuild fills",
                        remedy=f"Retry it when the rebuild is over: `cdc-sink tables {self._config.name}` tells.",
                    )
                if event.type not in documents:
                    raise self._unknown(f"event {event.id} is of {event.type}, which this sink does not map")
                if earlier := self._events.earlier(event):
                    first = " ".join(map(str, earlier))
                    raise EventUnknown(
                        f"event {event.id} follows {first}, parked of the same row",
                        remedy=f"Retry those first: `cdc-sink dead {self._config.name} retry {first}`.",
                    )
                table, document = self._config.tables[event.type], documents[event.type]
                replica = load(self._database, examine(self._database, event.type, table, document))
                load_children(self._database, replica, shapes(self._config, event.type, document))
                self._database.execute(b"SAVEPOINT retry")
                try:
                    refusal = None if apply_one(self._database, replica, event.change) else ROW_MISSING
                except DataRefused as error:
                    self._database.execute(b"ROLLBACK TO SAVEPOINT retry")
                    refusal = error.refusal
                if refusal is None:
                    self._events.remove([event.id])
                else:
                    self._events.failed_again(event, refusal)
                outcome[event.id] = None if refusal is None else str(refusal)
        return outcome
