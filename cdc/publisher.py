"""The streams in Redis: entries appended in order, each exactly once, and the pipeline's position beside them.

A batch is plain XADDs, for a script that appends costs Redis twice as much, in small transactions of Redis, and around
those of each is the guard of `append.lua` (the wire is `append_link`). It is sent while the one before is still being
appended, so that Redis never waits for the reader; that is safe because the guard knows the entry behind which a
transaction belongs, and lets nothing be appended behind any other: when one fails, all that follow do nothing. Redis is
told to keep its many answers to itself; how far each stream has come before and after tells what a batch came to, and
when something was refused it is sent again to hear why.

A batch's position is stored once its entries are known to be in, with the batch that follows, and only where they still
are (`store.lua`). XADD refuses what is there already, for ids rise, so a batch whose answer was lost is simply sent
again. A repeat needs proof (`proof`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NoReturn

import redis

from cdc import append
from cdc.append_link import WENT_BACK, AppendLink, Seen
from cdc.batch import Batch, StreamBatch
from cdc.counters import Counters
from cdc.errors import TransportError, TransportUnreachable
from cdc.proof import Proof
from cdc.transport import EntryTooLarge, translated_errors
from transforms.failpoints import Failpoint, reached
from transforms.keys import Keys
from transforms.position import LSN, START, Position


class StreamHole(TransportError):
    """Redis has lost entries that were in a stream. The next session finds out whether the slot still has them."""

    retryable = True

    remedy = (
        "Find out why Redis lost data: `cdc check` prints what its persistence can lose. "
        "Run `cdc snapshot --all` and start the reader again: a fresh snapshot reconciles the replicas."
    )


MOST_BYTES = 1 << 30
"""Redis refuses an entry with more, and only when it runs the transaction (t_stream.c: STREAM_LISTPACK_MAX_SIZE)."""
LOUD_BYTES = 1_000_000
"""From this size on an entry may be larger than Redis takes (proto-max-bulk-len is 1 MB or more), which only its answer
tells: the connection ends with it."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """What went over the wire in one go; its answers come in this order."""

    stores: Batch | None
    """The batch before, whose position is stored first."""
    batch: Batch
    known: Mapping[str, Position]
    """Stream -> the entry behind which its call appends."""
    quiet: bool
    """Redis keeps its answers to the single entries to itself."""
    at: float
    """When; monotonic seconds."""


class Publisher:
    """Appends batches to the pipeline's streams. Not for use from two threads at once. Methods raise TransportError.

    A batch is `send`, then it is settled and its position stored by `advance`.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        epoch: int,
        last_ids: Mapping[str, Position],
        counters: Counters | None = None,
        published: LSN | None = None,
        proof: Proof | None = None,
    ) -> None:
        """`last_ids`: for each stream (without pipeline and epoch) the last id it must hold.

        `published`: the position that is stored; None: there is none. `proof` judges what is skipped.
        """
        self._client = client
        self._keys = keys
        self._epoch = epoch
        self._counters = counters or Counters()
        self._published = published or LSN(0)
        """What is stored when all that was sent is."""
        self._link: AppendLink | None = None
        self._sent: deque[_Sent] = deque()
        self._appended: Batch | None = None
        """Its entries are in, its position is not stored yet."""
        self._expected: dict[str, Position] = {}
        """Stream -> where it ends when all that was sent is in."""
        self.last_ids: dict[str, Position] = dict(last_ids)
        self._proof = proof or Proof(client, keys, epoch)
        self.appended = 0
        self.skipped = 0

    @property
    def in_flight(self) -> int:
        """How many batches have been sent and not been answered."""
        return len(self._sent)

    @property
    def idle(self) -> bool:
        """Whether every batch that was sent is stored."""
        return not self._sent and self._appended is None

    def send(self, batch: Batch) -> None:
        """Have a batch appended behind those that were sent before; returns at once."""
        known = {stream: self._expected.get(stream, self.last_ids.get(stream, START)) for stream in batch.streams}
        with translated_errors():
            self._write(self._appended, batch, known)
        self._appended = None
        for stream, entries in batch.streams.items():
            self._expected[stream] = max(known[stream], append.last_id(entries.items))

    def advance(self) -> LSN | None:
        """Wait for the oldest answer, or with none under way store the position of what is appended.

        Returns the end of a batch that is stored now, wholly in Redis.
        """
        with translated_errors():
            if self._sent:
                return self._settle(self._sent[0])
            if self._appended is not None:
                stored, self._appended = self._appended, None
                self._write(stored, replace(stored, streams={}), {})
                self._settle(self._sent[0])
                self._appended = None
                return stored.end
        return None

    def close(self) -> None:
        """Give the connection up, with the answers that may still be on their way."""
        if self._link is not None:
            self._link.close()
            self._link = None

    # --- sending -----------------------------------------------------------------------------------------------------

    def _write(self, stores: Batch | None, batch: Batch, known: Mapping[str, Position]) -> None:
        largest = max((max(map(len, entries.items)) for entries in batch.streams.values()), default=0)
        if largest > MOST_BYTES:
            raise EntryTooLarge(f"an entry has {largest:,} bytes, Redis takes at most {MOST_BYTES:,}")
        link = self._connected()
        sent = _Sent(stores, batch, known, link.may_be_quiet and largest <= LOUD_BYTES, time.monotonic())
        self._sent.append(sent)
        storing = [] if stores is None else self._storing(link, stores)
        link.send(storing + link.appending(batch.streams, known, quiet=sent.quiet))

    def _storing(self, link: AppendLink, batch: Batch) -> list[bytes]:
        before, self._published = self._published, batch.end
        return link.storing(before, batch, {stream: self.last_ids[stream] for stream in batch.streams})

    def _connected(self) -> AppendLink:
        if self._link is None:
            self._link = AppendLink(self._client, self._keys, self._epoch, list(self.last_ids), self._counters)
        return self._link

    # --- what it came to ---------------------------------------------------------------------------------------------

    def _settle(self, sent: _Sent) -> LSN | None:
        """Read the answers to what was sent first. After an error the connection is of no use any more."""
        self._read_stored(sent)
        if sent.batch.streams:
            self._settle_entries(sent)
            reached(Failpoint.BATCH_APPENDED)
            self._counters.batch_answered(time.monotonic() - sent.at)
        self._proof.passed(sent.batch.end)
        self._sent.popleft()
        before, self._appended = self._appended, sent.batch
        if before is not None:  # it was appended while this one was on its way: its position goes with this one's
            self._appended = before.joined(sent.batch)
        return None if sent.stores is None else sent.stores.end

    def _read_stored(self, sent: _Sent) -> None:
        if sent.stores is None:
            return
        try:
            self._connected().stored()
        except redis.ResponseError as error:
            if str(error).startswith(WENT_BACK):
                raise StreamHole(
                    f"Redis lost what was published: {str(error).removeprefix(WENT_BACK).lstrip()}"
                ) from error
            raise
        reached(Failpoint.POSITION_STORED)

    def _settle_entries(self, sent: _Sent) -> None:
        streams = sent.batch.streams
        before, refusals, after = self._connected().appended(streams, quiet=sent.quiet)
        self._expect_no_hole(sent, before)
        if refusals:
            raise refusals[0]
        if any(seen.last < append.last_id(streams[stream].items) for stream, seen in zip(streams, after, strict=True)):
            self._hear_why(sent)
        for stream, seen, then in zip(streams, before, after, strict=True):
            self._take(stream, streams[stream], seen, then)

    def _expect_no_hole(self, sent: _Sent, before: Sequence[Seen]) -> None:
        for (stream, known), seen in zip(sent.known.items(), before, strict=True):
            if seen.last < known:
                key = self._keys.stream(stream, self._epoch)
                raise StreamHole(f"stream {key} lost entries: it ends at {seen.last}, expected {known}")

    def _hear_why(self, sent: _Sent) -> NoReturn:
        """Redis refused a batch without a word: send it again so that its answers are heard. Raises what they say."""
        link = self._connected()
        for later in list(self._sent)[1:]:  # the guard has kept these out
            self._read_stored(later)
            link.appended(later.batch.streams, quiet=later.quiet)
        link.send(link.appending(sent.batch.streams, sent.known, quiet=False))
        before, refusals, _ = link.appended(sent.batch.streams, quiet=False)
        self._expect_no_hole(sent, before)
        raise refusals[0] if refusals else TransportUnreachable("Redis refused a batch that it takes now")

    def _take(self, stream: str, entries: StreamBatch, seen: Seen, then: Seen) -> None:
        items = entries.items
        there = (Position.parse(append.entry_id(item).decode()) <= seen.last for item in items)
        skipped = sum(1 for _ in takewhile(bool, there))  # ids rise
        appended = entries.count - skipped
        self.last_ids[stream] = then.last
        self.appended += appended
        self._counters.entries[stream] += appended
        self.skipped += skipped
        self._counters.repeats[stream] += skipped
        if then.added - seen.added != appended or then.last != max(seen.last, append.last_id(items)):
            # somebody else wrote meanwhile, or one was refused between others
            self._proof.compare(stream, items, then.last)
        elif skipped:
            self._proof.compare(stream, items[:skipped], then.last)
        self._proof.sent_again(stream, items[:skipped], beyond=skipped < entries.count)
