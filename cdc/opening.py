"""Opening a session: every connection made, every precondition judged, everything made that is missing.

Order matters here. The slot must be free before anything is changed; a publication is made before its slot (Postgres
18 skips rows with only a warning otherwise); the snapshot that tells which transactions an earlier reader may have
delivered is taken when the slot is ours, so that there is no such reader any more.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from cdc.batch import BatchBuilder
from cdc.catalog import KeyNotInLog
from cdc.check.durability import durability_findings
from cdc.check.publication import order_findings
from cdc.check.refusal import refuse_errors
from cdc.check.transport import keeping_findings
from cdc.config import ReaderConfig
from cdc.control import Control
from cdc.counters import Counters
from cdc.durability import assurance_of
from cdc.errors import NotThePrimary, SourceBusy
from cdc.following import Follower
from cdc.known import Known
from cdc.learning import Learner
from cdc.mapping import Shapes
from cdc.once import Goal
from cdc.progress import Progress
from cdc.proof import Proof, SourceDiverged, Terms
from cdc.provisioning import take_slot
from cdc.publisher import Publisher
from cdc.replication import PublicationYounger, ReplicationConnection, SlotHeld, SystemIdentity
from cdc.retention.keeper import Retention
from cdc.server.facts import describe_server
from cdc.server.readiness import STANDBY, free_slots, role_finding, server_findings
from cdc.session import Session
from cdc.slot_wait import telling_who_is_waited_for
from cdc.snapshot.visibility import Deliveries
from cdc.snapshot.worker import SnapshotWorker
from cdc.source.connection import Source
from cdc.source.publication import Publication, find_publication
from cdc.source.slot import Slot, find_slot
from cdc.source.transactions import current_snapshot
from cdc.source.write_ahead_log import insert_position
from cdc.startup import Hole, SlotMissing, SourceState, Start, StoredState, decide
from cdc.stopping import refusal
from cdc.terms import MappedTerms
from cdc.translation import Translator
from cdc.transport import Attestor, TransportState, connect, server_facts
from cdc.witness import Witness
from transforms.errors import StatecastError
from transforms.keys import Keys
from transforms.position import LSN
from transforms.pulse import Pulse

log = logging.getLogger(__name__)

BATCH_ENTRIES = 1_000
BATCH_BYTES = 1 << 20
OPENING_SECONDS = 300.0
"""How long an opening may be silent: connecting, reading the catalog, a lock that ALTER PUBLICATION waits for."""


def message_prefix(pipeline: str) -> str:
    """The prefix of our own logical messages."""
    return f"statecast:{pipeline}"


class SnapshotsPaused(StatecastError):
    """A reader that is to end after the snapshots would never end."""

    remedy = "Run `cdc snapshot --resume`."


@dataclass
class Opened:
    """A session that is ready to run, and what it is made of."""

    config: ReaderConfig
    once: bool
    observe: Callable[[Opened], None]
    """Called about once a second while the session runs, by its publishing thread."""
    counters: Counters
    retention: Retention
    pulse: Pulse
    tell: Callable[[StatecastError], None]
    """Called from another thread while the opening waits for others."""
    _stack: ExitStack = field(default_factory=ExitStack)

    def open(self) -> None:
        """Connect and prepare. Raises StatecastError; `close` must follow in any case."""
        self.pulse.beat("opening", time.monotonic() + OPENING_SECONDS)
        config, name = self.config, self.config.pipeline.name
        keys = Keys(name)
        self.client = self._stack.enter_context(connect(config.transport.address))
        self.control = Control(self.client, keys)
        self.source = self._source()
        slot = self._examine()
        if self.once and self.control.snapshots_paused_since() is not None:
            raise SnapshotsPaused("snapshots are paused, and --once ends when they are complete")
        self.replication = ReplicationConnection(config.source.address, config.application_name)
        self._stack.callback(self.replication.close)
        system = self.replication.identify_system()

        stored = self.control.state([event.stream for event in config.events])
        if slot is not None and slot.active_pid is not None:
            raise SlotHeld(f"replication slot {config.source.slot} is read by another process (PID {slot.active_pid})")
        start = self._judge(system, slot, stored)
        self.shapes = Shapes(
            config.events, {} if start is Start.FRESH else self.control.schemas(), config.masking.masks
        )
        learner = Learner(config, self.source, self.control, self.shapes)
        learner.publish(Known.parse(stored.meta))
        if start is Start.RESUME:
            assert slot is not None
            confirmed = slot.confirmed
            if stored.meta.get("timeline") != str(system.timeline):
                self.control.set_timeline(system.timeline)
        else:
            confirmed = self._begin(system, slot, start)
            stored = self.control.state([event.stream for event in config.events])
        self.known = learner.learn(stored, Known.parse(stored.meta))
        self.counters.events = dict.fromkeys(self.known.mapped, False) | dict.fromkeys(self.known.stopped, True)
        self.replication.start(config.source.slot, config.publication)
        self._expect_slot_at(confirmed)
        self._assemble(keys, stored, confirmed, MappedTerms(self.shapes, self.known.begins))
        self.pulse.end("opening")
        log.info("streaming from %s", confirmed)

    def _examine(self) -> Slot | None:
        """Refuse servers that `cdc check` would refuse, before anything is made there; returns the slot."""
        facts = describe_server(self.source)
        if facts.standby:
            raise NotThePrimary(f"the source {STANDBY}")
        slot = find_slot(self.source, self.config.source.slot)
        transport, config = server_facts(self.client, self.config.transport.durability), self.config.transport
        refuse_errors([*keeping_findings(transport), *durability_findings(transport, config)])
        self._assurance = assurance_of(config, transport)
        refuse_errors(server_findings(facts, self.config.application_name))
        refuse_errors([role_finding(facts), *([free_slots(facts)] if slot is None else [])])
        return slot

    def _another_source(self) -> Source:
        """One that whoever asks for it has to close."""
        return Source(self.config.source.address, self.config.application_name)

    def _source(self) -> Source:
        source = self._another_source()
        self._stack.callback(source.close)
        return source

    def _judge(self, system: SystemIdentity, slot: Slot | None, stored: TransportState) -> Start:
        publication = find_publication(self.source, self.config.publication)
        meta = stored.meta
        asked = self.control.is_asked_for([event.label for event in self.config.events])
        try:
            start = decide(self._source_state(system, slot, publication, meta), stored_state(stored))
            diverged = meta.get("diverged") if start is Start.RESUME and asked else None
        except Hole as hole:
            if not asked:
                self.control.note_divergence(str(hole), slot_missing=isinstance(hole, SlotMissing))
                raise
            diverged = str(hole)
        if diverged is None:
            if "diverged" in meta:  # it is as it should be; or else that shows again
                self.control.forget_divergence()
            if start is Start.FRESH:
                refuse_errors(order_findings(self.config, publication, slot))
            return start
        log.warning("%s: a snapshot of everything was asked for, so a new epoch begins", diverged)
        return Start.NEW_EPOCH if "system_identifier" in meta else Start.FRESH

    def _source_state(
        self, system: SystemIdentity, slot: Slot | None, publication: Publication | None, meta: Mapping[str, str]
    ) -> SourceState:
        return SourceState(
            system.system_identifier,
            system.timeline,
            self.source.database(),
            publication.oid if publication else None,
            insert_position(self.source),
            slot.plugin if slot else None,
            slot.database if slot else "",
            slot.confirmed if slot else LSN(0),
            slot.wal_status if slot else "",
            slot.lost_because if slot else None,
            slot is not None and slot.two_phase,
            self._fork(system, meta.get("timeline")),
        )

    def _expect_slot_at(self, confirmed: LSN) -> None:
        """The slot is ours now: it must still be where it was when it was judged."""
        slot = find_slot(self.source, self.config.source.slot)
        if slot is None or slot.confirmed != confirmed:
            raise SourceBusy("another reader moved the slot while this one was connecting")

    def _fork(self, system: SystemIdentity, stored_timeline: str | None) -> LSN | None:
        if stored_timeline is None or int(stored_timeline) >= system.timeline:
            return None
        return self.replication.timeline_end(int(stored_timeline), of=system.timeline)

    def _begin(self, system: SystemIdentity, slot: Slot | None, start: Start) -> LSN:
        """Make slot and meta of a new pipeline or epoch; returns where the slot stands."""
        name = self.config.source.slot
        self.pulse.beat("opening", math.inf)  # the application's transactions end when they end
        with telling_who_is_waited_for(self.source.backend_pid, self._another_source, self.tell):
            position = take_slot(self.source, name, slot, anew=start is Start.NEW_EPOCH)
        self.pulse.beat("opening", time.monotonic() + OPENING_SECONDS)
        publication = find_publication(self.source, self.config.publication)
        assert publication is not None
        identity = system.system_identifier, system.timeline
        if start is Start.NEW_EPOCH:
            self.control.begin_epoch(*identity, publication.oid, position)
        else:
            self.control.make_meta(*identity, name, publication.oid, position)
        return position

    def _assemble(self, keys: Keys, stored: TransportState, confirmed: LSN, terms: Terms) -> None:
        config = self.config
        self.published, self.life = stored.published, stored.life
        proof = Proof(self.client, keys, stored.epoch, terms, confirmed, stored.stream_ends)
        self.publisher = Publisher(
            self.client, keys, stored.epoch, stored.stream_ends, self.counters, stored.published, proof
        )
        self._stack.callback(self.publisher.close)
        self.progress = Progress(confirmed, self._assurance.delay_seconds)
        attestor = Attestor(self._stack.enter_context(connect(config.transport.address)), keys)
        self.witness = Witness(attestor, self._assurance, stored.life, stored.identity, self.pulse)
        self.session = Session(
            self.replication,
            self.publisher,
            self.progress,
            self.witness,
            self.retention.blocking,
            lambda: self.observe(self),
            self.counters,
            self.pulse,
        )
        prefix = message_prefix(config.pipeline.name)
        client = self._stack.enter_context(connect(config.transport.address))
        control = Control(client, keys)

        def stream_key(stream: str) -> bytes:
            return keys.stream(stream, stored.epoch).encode()

        follower = Follower(
            self.shapes,
            config.publication,
            self.known,
            self.source,
            control,
            lambda: self.worker.wake(),
            stream_key,
        )
        self.translator = Translator(
            BatchBuilder(confirmed, BATCH_ENTRIES, BATCH_BYTES),
            Deliveries(current_snapshot(self.source)),
            prefix,
            follower.routes,
            self.session.submit_full,
            stream_key,
            stored.stream_ends,
            self.control.parked_of(self.shapes.mapped),
            follower.related_routes,
        )
        self.worker = SnapshotWorker(
            self._source(),
            self._another_source,
            control,
            self.translator,
            follower.subjects,
            prefix,
            self.session.post,
            follower.verify,
            self.counters,
            self.retention.blocking.snapshot_waits_for,
            config.source.snapshot_workers,
            self.known.stopped.keys(),
        )

    def run(self, stop: threading.Event) -> None:
        """Stream until `stop` is set, or with `once` until all that is there now is published and confirmed."""
        try:
            self._run(stop)
        except (SourceDiverged, PublicationYounger, KeyNotInLog) as error:
            self.control.note_divergence(str(error))
            raise

    def _run(self, stop: threading.Event) -> None:
        goal = (
            Goal(self.source, self.translator, self.worker, message_prefix(self.config.pipeline.name))
            if self.once
            else None
        )
        if goal:
            self.worker.when_idle = self.session.wake
        until, is_settled = (goal.reached_at, goal.is_settled) if goal else (lambda: None, lambda: True)
        self.session.run(self.translator, self.worker, stop, until, is_settled)
        if self.once and self.known.stopped and not stop.is_set():
            raise refusal(self.known.stopped)

    def close(self) -> None:
        """End all connections."""
        self.pulse.end("opening")
        self._stack.close()


def stored_state(stored: TransportState) -> StoredState:
    """What Redis holds, as a start judges it."""
    meta = stored.meta
    return StoredState(
        meta.get("system_identifier"),
        int(meta.get("timeline", "0")),
        int(meta.get("publication_oid", "0")),
        stored.published,
        "slot_missing" in meta,
        {stream: (end, stored.kept_last_id(stream)) for stream, end in stored.stream_ends.items()},
    )
