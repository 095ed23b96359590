"""The checkpoints of one sink: rows of `cdc.checkpoint`, changed together with the rows they cover.

Safety rests on the row's lock and on comparing positions. The lease (`owner`, `lease_until`, by the target's clock)
only keeps two workers from doing the same work twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from sinks.errors import AccessDenied, CheckpointMoved, DataRefused, RefusedAtCommit
from sinks.postgres import Database
from sinks.privileges import OWN_TABLES, require
from transforms.position import LSN, Position

LEASE_SECONDS = 10

_SCHEMA = resources.files("sinks").joinpath("schema.sql").read_bytes()
_OF_SINK = b" WHERE pipeline = %s AND sink = %s"
_OF_STREAM = _OF_SINK + b" AND stream = %s"
_AT = _OF_STREAM + b" AND incarnation = %s AND commit_lsn = %s::pg_lsn AND ordinal = %s AND owner = %s"
_DIVISION_BY_ZERO = "22012"
_LEASE = b"clock_timestamp() + interval '%d seconds'" % LEASE_SECONDS


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Up to where a stream has been applied."""

    stream: str
    incarnation: str
    position: Position
    applied_lsn: LSN | None


class Checkpoints:
    """The checkpoint rows of one sink. But for `make_schema`, methods run in the caller's transaction."""

    def __init__(self, database: Database, pipeline: str, sink: str, owner: str) -> None:
        self._database = database
        self._sink = (pipeline, sink)
        self._owner = owner

    def make_schema(self) -> None:
        """Create schema `cdc` with its tables, as far as they are missing or of an older version.

        Raises AccessDenied with what to do instead.
        """
        with self._database.transaction():
            if self._database.rows(b"SELECT FROM pg_namespace WHERE nspname = 'cdc'"):
                require(self._database, OWN_TABLES)
            if self._schema_is_current():
                return
            # CREATE ... IF NOT EXISTS of two sessions at once can fail all the same.
            self._database.execute(b"SELECT pg_advisory_xact_lock(hashtextextended('statecast schema', 0))")
            if self._schema_is_current():
                return
            try:
                self._database.script(_SCHEMA)
            except AccessDenied as error:
                remedy = (
                    f"Run `cdc-sink tables {self._sink[1]} --apply` once as a role that may create a schema in this"
                    f" database, or let this one: `cdc-sink check {self._sink[1]}` prints the GRANT."
                )
                raise AccessDenied(f"schema cdc cannot be made: {error}", remedy=remedy) from error

    def schema_exists(self) -> bool:
        """Whether the tables of schema `cdc` are there."""
        query = b"SELECT count(to_regclass(name)) FROM unnest(%s::text[]) AS name"
        return bool(self._database.row(query, [list(map(str, OWN_TABLES))])[0] == len(OWN_TABLES))

    def _schema_is_current(self) -> bool:
        query = (
            b"SELECT count(*) = 2 FROM pg_attribute"
            b" WHERE attrelid = to_regclass('cdc.replica') AND attname IN ('unseen_table', 'asked_run')"
        )
        return self.schema_exists() and bool(self._database.row(query)[0])

    def take_lease(self) -> dict[str, Checkpoint] | None:
        """Become the sink's worker and return its checkpoints by stream; None: another worker is alive."""
        self._database.execute(b"SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", ["/".join(self._sink)])
        (count,) = self._database.row(b"SELECT count(*) FROM cdc.checkpoint" + _OF_SINK, self._sink)
        rows = self._database.rows(
            b"SELECT stream, incarnation, commit_lsn::text, ordinal, applied_lsn::text,"
            b" owner <> %s AND lease_until > clock_timestamp() FROM cdc.checkpoint"
            + _OF_SINK
            + b" FOR UPDATE SKIP LOCKED",
            [self._owner, *self._sink],
        )
        if len(rows) < count or any(held for *_, held in rows):  # a locked row: its worker applies a batch
            return None
        self._database.execute(
            b"UPDATE cdc.checkpoint SET owner = %s, lease_until = " + _LEASE + _OF_SINK, [self._owner, *self._sink]
        )
        return {row[0]: _checkpoint(*row[:5]) for row in rows}

    def read(self) -> dict[str, Checkpoint]:
        """The sink's checkpoints by stream, whoever works on them."""
        rows = self._database.rows(
            b"SELECT stream, incarnation, commit_lsn::text, ordinal, applied_lsn::text FROM cdc.checkpoint" + _OF_SINK,
            self._sink,
        )
        return {row[0]: _checkpoint(*row) for row in rows}

    def is_at_work(self) -> bool:
        """Whether a worker of this sink is alive, as far as its lease tells."""
        query = b"SELECT EXISTS (SELECT FROM cdc.checkpoint" + _OF_SINK + b" AND lease_until > clock_timestamp())"
        return bool(self._database.row(query, self._sink)[0])

    def begin(self, stream: str, incarnation: str, position: Position) -> Checkpoint:
        """Start a stream, perhaps again, behind `position`."""
        self._database.execute(
            b"INSERT INTO cdc.checkpoint (pipeline, sink, stream, incarnation, commit_lsn, ordinal, owner, lease_until)"
            b" VALUES (%s, %s, %s, %s, %s::pg_lsn, %s, %s, "
            + _LEASE
            + b") ON CONFLICT (pipeline, sink, stream) DO UPDATE"
            b" SET incarnation = excluded.incarnation, commit_lsn = excluded.commit_lsn, ordinal = excluded.ordinal,"
            b" applied_lsn = NULL, owner = excluded.owner, lease_until = excluded.lease_until,"
            b" updated_at = clock_timestamp()",
            [*self._sink, stream, incarnation, str(position.commit_lsn), position.ordinal, self._owner],
        )
        return Checkpoint(stream, incarnation, position, None)

    def forget_others(self, streams: Sequence[str]) -> list[str]:
        """Remove the checkpoints of streams that this sink does not read any more; returns those streams."""
        rows = self._database.rows(
            b"DELETE FROM cdc.checkpoint" + _OF_SINK + b" AND stream <> ALL(%s) RETURNING stream",
            [*self._sink, list(streams)],
        )
        return [stream for (stream,) in rows]

    def forget(self, known: Checkpoint) -> None:
        """Remove a stream's checkpoint, so that the stream is begun anew. Raises CheckpointMoved."""
        self.lock(known)
        self._database.execute(b"DELETE FROM cdc.checkpoint" + _OF_STREAM, [*self._sink, known.stream])

    def lock(self, known: Checkpoint) -> bool:
        """Take the row; returns whether the sink has parked events. Raises CheckpointMoved."""
        rows = self._database.rows(
            b"SELECT incarnation, commit_lsn::text, ordinal, owner,"
            b" EXISTS (SELECT FROM cdc.dead_event d WHERE d.pipeline = c.pipeline AND d.sink = c.sink)"
            b" FROM cdc.checkpoint c" + _OF_STREAM + b" FOR UPDATE",
            [*self._sink, known.stream],
        )
        here = (known.incarnation, str(known.position.commit_lsn), known.position.ordinal, self._owner)
        if not rows or rows[0][:4] != here:
            raise CheckpointMoved(f"the checkpoint of {known.stream} is not where this worker left it")
        return bool(rows[0][4])

    def lock_with_next(self, known: Checkpoint) -> None:
        """Have the row taken together with the transaction's next statement, which saves a round trip.

        Where the checkpoint has moved, that statement raises DataRefused, and nothing but `lock` tells why.
        """
        self._database.begin_with(
            b"SELECT 1 / count(*) FROM (SELECT FROM cdc.checkpoint" + _AT + b" FOR UPDATE) AS held", self._at(known)
        )

    def advance(self, known: Checkpoint, position: Position, applied_lsn: LSN | None) -> Checkpoint:
        """Move the row on, renew the lease, and commit.

        Raises CheckpointMoved, and RefusedAtCommit of a deferred constraint or trigger: then nothing was committed.
        """
        try:
            self._database.commit_with(
                b"WITH moved AS (UPDATE cdc.checkpoint SET commit_lsn = %s::pg_lsn, ordinal = %s,"
                b" applied_lsn = %s::pg_lsn, lease_until = "
                + _LEASE
                + b", updated_at = clock_timestamp()"
                + _AT
                + b" RETURNING 1)"
                b" SELECT 1 / count(*) FROM moved",  # an error, before the commit, where no row was moved
                [
                    str(position.commit_lsn),
                    position.ordinal,
                    None if applied_lsn is None else str(applied_lsn),
                    *self._at(known),
                ],
            )
        except DataRefused as error:
            if error.refusal.sqlstate != _DIVISION_BY_ZERO or error.refusal.in_function:
                raise RefusedAtCommit(error.refusal) from None
            raise CheckpointMoved(f"the checkpoint of {known.stream} is not where this worker left it") from error
        return Checkpoint(known.stream, known.incarnation, position, applied_lsn)

    def _at(self, known: Checkpoint) -> list[str | int | None]:
        place = known.position
        return [*self._sink, known.stream, known.incarnation, str(place.commit_lsn), place.ordinal, self._owner]

    def renew(self, count: int) -> int:
        """Keep the lease of `count` streams; returns how many events are parked. Raises CheckpointMoved."""
        kept = self._database.execute(
            b"UPDATE cdc.checkpoint SET lease_until = " + _LEASE + _OF_SINK + b" AND owner = %s",
            [*self._sink, self._owner],
        )
        if kept != count:
            raise CheckpointMoved("another worker of this sink has taken over")
        return self.parked()

    def parked(self) -> int:
        """How many events are parked."""
        return int(self._database.row(b"SELECT count(*) FROM cdc.dead_event" + _OF_SINK, self._sink)[0])

    def release(self) -> None:
        """Let another worker of this sink go on at once."""
        self._database.execute(
            b"UPDATE cdc.checkpoint SET owner = NULL, lease_until = NULL" + _OF_SINK + b" AND owner = %s",
            [*self._sink, self._owner],
        )


def _checkpoint(stream: str, incarnation: str, commit_lsn: str, ordinal: int, applied_lsn: str | None) -> Checkpoint:
    position = Position(LSN.parse(commit_lsn), ordinal)
    return Checkpoint(stream, incarnation, position, None if applied_lsn is None else LSN.parse(applied_lsn))
