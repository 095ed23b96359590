"""What a start (and every reconnect) may do: the slot, Redis and the source compared. Pure decisions.

The rule behind them: a hole is never skipped in silence, and nothing that would hide one is re-created. A slot that was
dropped and made again under its name does not pass for the old one: making it writes to the log, and it is confirmed
behind that, so beyond all that was published before. Only where the log itself went back it may not be; a restored copy
has the slot it had (then `proof` tells), or none, which is remembered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from cdc.errors import SourceError
from transforms.position import LSN, Position

_HEAL = (
    "Run `cdc snapshot --all` and start the reader again: it begins a new epoch of the streams, and a fresh snapshot"
    " reconciles the replicas, deleted rows included."
)


class Hole(SourceError):
    """Changes may be missing between what was published and what can be read; a new epoch would mend it.

    A person says that it shall, by asking for a snapshot of everything: pointed at a wrong database by mistake, the
    reader must not turn all replicas into copies of that one.
    """

    remedy = _HEAL


class SlotMissing(Hole):
    """The slot is gone, and with it the changes since the last confirmed one."""


class SlotReplaced(Hole):
    """The slot was missing, and somebody has made one of its name: it knows nothing of what came before it."""


class SlotLost(Hole):
    """Postgres has invalidated the slot: it cannot be read any more."""

    remedy = f"{_HEAL} Keep the reader running, or change the setting that is named, so that it does not happen again."


class SlotForeign(SourceError):
    """A slot of this name belongs to something else."""

    remedy = "Set source.slot to a name that nothing else uses."


class SlotAhead(Hole):
    """The slot has been confirmed beyond what Redis holds: changes between the two are in neither."""

    remedy = f"{_HEAL} Find out who else read from the slot, or why Redis went back."


class SystemChanged(Hole):
    """The source is another cluster, or another branch of its history, than the streams were made from."""

    remedy = f"If that is meant (a restore, an upgrade, a failover): {_HEAL[0].lower()}{_HEAL[1:]}"


class StreamsWentBack(Hole):
    """A stream ends before the last id that was published to it."""

    remedy = f"Redis lost data: find out why. {_HEAL}"


class MetaMissing(SourceError):
    """The streams are there, but the pipeline's position is not."""

    remedy = "Find out who deleted the key. Run `cdc drop` and start again: a fresh snapshot reconciles the replicas."


class Start(Enum):
    """What to do first."""

    FRESH = auto()
    """Make what is missing of publication, slot and meta, and snapshot every event."""
    RESUME = auto()
    """Stream from the slot's confirmed position, which publishes again what Redis may have lost."""
    NEW_EPOCH = auto()
    """The streams have a hole, and a person has asked for a snapshot of everything: begin them under new names."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """The source's side."""

    system_identifier: str
    timeline: int
    database: str
    publication_oid: int | None
    insert_position: LSN
    slot_plugin: str | None
    """None: there is no slot."""
    slot_database: str
    slot_confirmed: LSN
    slot_wal_status: str
    slot_lost_because: str | None = None
    """Where the server tells why."""
    slot_two_phase: bool = False
    fork: LSN | None = None
    """Where the stored timeline was left, when the source is on a later one; None: it is not among its ancestors."""


@dataclass(frozen=True, slots=True)
class StoredState:
    """Redis' side: what the meta hash says (None: there is none), and where streams end against what it says."""

    system_identifier: str | None
    timeline: int
    publication_oid: int
    published: LSN
    slot_was_missing: bool
    """An earlier start has found no slot: one that is there now is another one."""
    stream_ends: dict[str, tuple[Position, Position]]
    """Stream -> (the last id it has, the last id it should at least have)."""


def decide(source: SourceState, stored: StoredState) -> Start:
    """Judge a start. Raises one of this file's errors where a person must decide."""
    _check_slot_is_ours(source)
    if stored.system_identifier is None:
        with_entries = [stream for stream, (end, _) in stored.stream_ends.items() if end.ordinal]
        if with_entries:
            raise MetaMissing(f"Redis holds streams ({', '.join(with_entries)}) but not the position they stand at")
        _check_slot_lives(source)
        return Start.FRESH
    _check_slot_lives(source)
    _check_history(source, stored)
    for stream, (end, kept) in stored.stream_ends.items():
        if end < kept and source.slot_confirmed > end.commit_lsn:  # else the slot has all that came behind its end
            raise StreamsWentBack(
                f"stream {stream} ends at {end}, but {kept} was published to it, and the slot has been confirmed"
                f" up to {source.slot_confirmed}"
            )
    return Start.RESUME


def _check_slot_is_ours(source: SourceState) -> None:
    if source.slot_plugin is None:
        return
    if not source.slot_plugin:
        raise SlotForeign("the slot is a physical one, as a standby has")
    if source.slot_plugin != "pgoutput" or source.slot_database != source.database:
        raise SlotForeign(
            f"the slot decodes {source.slot_database!r} with {source.slot_plugin!r},"
            f" not {source.database!r} with 'pgoutput'"
        )
    if source.slot_two_phase:
        raise SlotForeign("the slot was made with two_phase: it sends transactions that may yet be rolled back")


def _check_slot_lives(source: SourceState) -> None:
    if source.slot_wal_status == "lost":
        because = source.slot_lost_because or "Postgres removed WAL that it still needed"
        raise SlotLost(f"the slot is lost: {because}")


def _check_history(source: SourceState, stored: StoredState) -> None:
    if source.system_identifier != stored.system_identifier:
        raise SystemChanged("the source is another cluster than the one the streams were made from")
    if source.timeline != stored.timeline and (source.fork is None or stored.published > source.fork):
        raise SystemChanged("the source is on another timeline, which began before what has been published")
    if source.slot_plugin is None:
        raise SlotMissing("the slot does not exist any more, and with it the changes since the last confirmed one")
    if stored.slot_was_missing:
        raise SlotReplaced("the slot did not exist when a reader started last: the one that does now is another one")
    if stored.published > source.insert_position:
        raise SystemChanged(
            f"the source's log ends at {source.insert_position}, before what has been published ({stored.published})"
        )
    if source.slot_confirmed > stored.published:
        raise SlotAhead(f"the slot is confirmed up to {source.slot_confirmed}, Redis holds up to {stored.published}")
    if source.publication_oid != stored.publication_oid:
        raise SystemChanged("the publication was dropped and made again: changes in between may be missing")
