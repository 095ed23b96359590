"""A Translator that is fed built frames, with what it publishes in a readable form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from cdc.batch import Batch, BatchBuilder, StreamBatch
from cdc.messages import RelationMessage
from cdc.related.touching import RelatedRoute
from cdc.route import Route
from cdc.snapshot.visibility import Deliveries, Snapshot
from cdc.translation import Translator
from tests import append_model, builders
from tests.builders import INTEGER, TEXT, column
from transforms.encoder import RowEncoder, compile_encoder
from transforms.position import LSN, Position

CUSTOMERS, ORDERS, UNMAPPED, LEAVES, UNANNOUNCED = 16401, 16402, 16403, 16404, 16499
PREFIX = "cdc_shop"
START = LSN(10)


def columns(note: int = TEXT) -> list[tuple[str, int]]:
    return [("id", INTEGER), ("name", TEXT), ("note", note)]


def encoder(size: int = 3, note: int = TEXT) -> RowEncoder:
    """For rows of the first columns, keyed by `id`."""
    made = [column(name, oid) for name, oid in columns(note)[:size]]
    return compile_encoder(made, [each.name for each in made], ["id"])


def route(
    label: str, *, stream: str | None = None, note: int = TEXT, truncate: str = "apply", **options: object
) -> Route:
    unchanged_toast, rev = str(options.get("unchanged_toast", "partial")), int(str(options.get("rev", 1)))
    stream = stream or label.partition(".")[0]
    is_read = options.get("is_read") is True
    key, encoded = stream_key(stream), encoder(note=note)
    return Route(label, stream, key, encoded, truncate, unchanged_toast, rev, is_read=is_read)


def stream_key(stream: str) -> bytes:
    return b"shop:" + stream.encode()


class Log:
    """What the reader does with the log: frames in, entries out."""

    def __init__(
        self,
        routes: Mapping[int, Sequence[Route]] | None = None,
        *,
        limit_count: int = 1000,
        limit_bytes: int = 1 << 20,
        ends: Mapping[str, Position] | None = None,
        resolve_related: Callable[[RelationMessage], Sequence[RelatedRoute]] = lambda _: (),
    ) -> None:
        self.routes = dict(routes or {CUSTOMERS: [route("customer.v1")]})
        self.batches: list[Batch] = []
        self.builder = BatchBuilder(START, limit_count, limit_bytes)
        self.deliveries = Deliveries(Snapshot(1, 1, frozenset()))
        self.translator = Translator(
            self.builder,
            self.deliveries,
            PREFIX,
            self._resolve,
            self._take,
            stream_key,
            ends or {},
            None,
            resolve_related,
        )
        relations = [builders.relation(id, f"table_{id}", columns()) for id in (CUSTOMERS, ORDERS, UNMAPPED)]
        self.feed(map(builders.xlog_data, relations))

    def _resolve(self, message: RelationMessage) -> Sequence[Route]:
        return self.routes.get(message.relation_id, ())

    def _take(self) -> None:
        self.batches.append(self.builder.take())

    def feed(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.translator.feed(frame)

    def feed_runs(self, frames: list[bytes]) -> None:
        """The same for frames that came together."""
        at = 0
        while at < len(frames):
            at += self.translator.feed_run(frames, at)

    def take_batch(self) -> None:
        """Take what may be published."""
        self._take()

    def take(self) -> list[str]:
        """Take what may be published, and tell all that is published since the last call."""
        self._take()
        return self.published()

    def published(self) -> list[str]:
        """`stream id op key [origin] [end]` of each entry that was taken since the last call."""
        taken, self.batches = self.batches, []
        return sorted(
            (
                " ".join([stream, entry_id, *_told(words)])
                for batch in taken
                for stream, entries in batch.streams.items()
                for entry_id, words in split(entries)
            ),
            key=lambda line: line.split()[0],
        )

    def words(self, stream: str, entry_id: str) -> list[bytes]:
        """The words of one entry of what may be published."""
        self._take()
        return dict(split(self.batches[-1].streams[stream]))[entry_id]


def split(batch: StreamBatch) -> list[tuple[str, list[bytes]]]:
    """The entries of a stream's batch."""
    return [(entry_id.decode(), words) for entry_id, words in append_model.entries(batch)]


def _told(words: list[bytes]) -> list[str]:
    fields = dict(zip(words[::2], words[1::2], strict=True))
    told = [fields[b"op"].decode()]
    if b"key" in fields:
        told.append(fields[b"key"].decode(errors="replace").removeprefix('{"id":').removesuffix("}"))
    told += [fields[name].decode() for name in (b"mark", b"origin") if name in fields]
    return [*told, "end"] if b"end" in fields else told
