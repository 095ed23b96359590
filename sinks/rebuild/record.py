"""What is being rebuilt: rows of `cdc.rebuild`, one of each table in hand and the last ones that came to an end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sinks.errors import RebuildMoved
from sinks.postgres import Database, compose, identifier
from transforms.names import TableName

_SHADOW_SUFFIX = " (rebuild)"
_COLUMNS = (
    b"SELECT id, table_name, event, shadow, keep_as, drop_columns, state, run, frozen, rows, reason FROM cdc.rebuild"
)
_OF_SINK = b" WHERE pipeline = %s AND sink = %s"


@dataclass(frozen=True, slots=True)
class Record:
    """A rebuild, as it is stored."""

    id: int
    table: TableName
    event: str
    """Its label, `customer.v1`."""
    shadow: TableName
    keep_as: str | None
    """The name that the old table gets; None: it is dropped."""
    drop_columns: bool
    state: str
    run: str | None
    """The snapshot run that the reader was asked for."""
    frozen: bool
    """Whether the old table takes nothing any more."""
    rows: int
    reason: str | None

    @classmethod
    def wanted(
        cls, table: TableName, event: str, shadow: TableName, keep_as: str | None, *, drop_columns: bool
    ) -> Record:
        """One that is not stored yet."""
        return cls(0, table, event, shadow, keep_as, drop_columns, "asked", None, False, 0, None)

    @property
    def shadow_label(self) -> str:
        """Under which the shadow is registered, and what it refuses is parked."""
        return self.event + _SHADOW_SUFFIX

    def to_json(self) -> dict[str, object]:
        """As the sink's status shows it."""
        told = {"event": self.event, "table": str(self.table), "state": self.state}
        return {**told, "rows": self.rows, "reason": self.reason}

    def __str__(self) -> str:
        told = f"{self.state}, {self.rows:,} rows written to {self.shadow}" if self.state != "asked" else "asked for"
        return told + (f"; it {self.reason}" if self.reason else "")


def is_of_shadow(label: str) -> bool:
    """Whether what is registered or parked under this label is a shadow's."""
    return label.endswith(_SHADOW_SUFFIX)


class Records:
    """The rebuilds of one sink. Methods run in the caller's transaction."""

    def __init__(self, database: Database, pipeline: str, sink: str) -> None:
        self._database = database
        self._sink = (pipeline, sink)

    def in_hand(self, *, hold: bool = False) -> list[Record]:
        """Those that have not ended, by table. `hold`: they stay as they are until the transaction ends."""
        query = _COLUMNS + _OF_SINK + b" AND ended_at IS NULL ORDER BY table_name" + (b" FOR UPDATE" if hold else b"")
        return [_record(row) for row in self._database.rows(query, self._sink)]

    def runs_of_ended(self) -> list[str]:
        """The snapshot runs that the reader was asked for, of rebuilds that have ended."""
        query = b"SELECT run FROM cdc.rebuild" + _OF_SINK + b" AND ended_at IS NOT NULL AND run IS NOT NULL"
        return [run for (run,) in self._database.rows(query, self._sink)]

    def find(self, id_: int) -> Record | None:
        """A rebuild, ended or not; None: it ended long ago."""
        rows = self._database.rows(_COLUMNS + b" WHERE id = %s", [id_])
        return _record(rows[0]) if rows else None

    def add(self, record: Record) -> int:
        """Write down that a rebuild is wanted; those that ended long ago are forgotten."""
        table = str(record.table)
        self._database.execute(
            b"DELETE FROM cdc.rebuild" + _OF_SINK + b" AND ended_at < clock_timestamp() - interval '30 days'",
            self._sink,
        )
        row = self._database.row(
            b"INSERT INTO cdc.rebuild (table_name, pipeline, sink, event, shadow, keep_as, drop_columns)"
            b" VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
            [table, *self._sink, record.event, str(record.shadow), record.keep_as, record.drop_columns],
        )
        return int(row[0])

    def hold(self, ids: Iterable[int]) -> None:
        """Keep these in hand until the transaction ends. Raises RebuildMoved when one of them has ended."""
        wanted = list(ids)
        rows = self._database.rows(
            b"SELECT id FROM cdc.rebuild WHERE id = ANY(%s) AND ended_at IS NULL ORDER BY id FOR UPDATE", [wanted]
        )
        if len(rows) < len(wanted):
            raise RebuildMoved("a rebuild was called off")

    def begin(self, id_: int) -> None:
        """The shadow is there, empty."""
        self._database.execute(
            b"UPDATE cdc.rebuild SET state = 'filling', run = NULL, rows = 0, reason = NULL WHERE id = %s", [id_]
        )

    def note_run(self, id_: int, run: str) -> None:
        """The reader was asked for this run."""
        self._database.execute(b"UPDATE cdc.rebuild SET run = %s WHERE id = %s", [run, id_])

    def note_rows(self, id_: int, count: int, *, filled: bool) -> None:
        """So many rows more are in the shadow."""
        self._database.execute(
            b"UPDATE cdc.rebuild SET rows = rows + %s, state = %s WHERE id = %s",
            [count, "filled" if filled else "filling", id_],
        )

    def note_reason(self, id_: int, reason: str | None) -> None:
        """What it waits for."""
        self._database.execute(
            b"UPDATE cdc.rebuild SET reason = %s WHERE id = %s AND reason IS DISTINCT FROM %s AND ended_at IS NULL",
            [reason, id_, reason],
        )

    def freeze(self, id_: int) -> None:
        """The old table takes nothing any more."""
        self._database.execute(b"UPDATE cdc.rebuild SET frozen = true WHERE id = %s", [id_])

    def end(self, id_: int, state: str, reason: str | None = None) -> None:
        """It is over: `done`, `failed` or `called off`."""
        self._database.execute(
            b"UPDATE cdc.rebuild SET state = %s, reason = %s, ended_at = clock_timestamp() WHERE id = %s",
            [state, reason, id_],
        )

    def give_up(self, record: Record, state: str, reason: str | None = None) -> None:
        """End it without a swap: the shadow goes, and a table that missed changes is filled again by a snapshot."""
        self.drop_shadow(record)
        if record.frozen:
            self._database.execute(
                b"UPDATE cdc.replica SET filled = false, wants_snapshot = true, run = NULL WHERE table_name = %s",
                [str(record.table)],
            )
        self.end(record.id, state, reason)

    def shadows(self, record: Record) -> list[str]:
        """The tables that are registered as its shadow or that of one of its embeds, as SQL names them."""
        query = b"SELECT table_name FROM cdc.replica" + _OF_SINK + b" AND (table_name = %s AND event = %s"
        query += b" OR starts_with(event, %s) AND right(event, length(%s)) = %s) ORDER BY table_name"
        of_embeds = [f"{record.event}.", _SHADOW_SUFFIX, _SHADOW_SUFFIX]
        rows = self._database.rows(query, [*self._sink, str(record.shadow), record.shadow_label, *of_embeds])
        return [table for (table,) in rows]

    def drop_shadow(self, record: Record) -> None:
        """Remove what `shadows` names, as far as it is there, with all that is known of it. A table of others stays."""
        registered = self._database.rows(
            b"DELETE FROM cdc.replica WHERE table_name = ANY(%s) RETURNING table_name, unseen_table",
            [self.shadows(record)],
        )
        for table, unseen_table in registered:
            self._database.execute(compose("DROP TABLE IF EXISTS {}", identifier(TableName.parse(table))))
            if unseen_table is not None:
                self._database.execute(compose("DROP TABLE IF EXISTS {}", identifier(TableName("cdc", unseen_table))))
        self._database.execute(
            b"DELETE FROM cdc.dead_event" + _OF_SINK + b" AND type = %s", [*self._sink, record.shadow_label]
        )


def _record(row: tuple[Any, ...]) -> Record:
    id_, table, event, shadow, *rest = row
    return Record(id_, TableName.parse(table), event, TableName.parse(shadow), *rest)
