"""A reader's and a sink's collectors with something in every field, without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from cdc.config import ReaderConfig, load_reader_config
from cdc.metrics import ReaderCollector
from cdc.pipeline import Reader
from cdc.retention.figures import Unread
from cdc.retention.judging import Memory
from cdc.snapshot.run import Run
from cdc.source.slot import Slot
from cdc.watch import SinkSeen, SourceSeen, TransportSeen, Watch
from sinks.config import SinkConfig, load_sink_config
from sinks.counters import StreamProgress
from sinks.metrics import SinkCollector
from sinks.worker import Worker
from transforms.errors import StatecastError
from transforms.position import LSN

CONFIGURATION = """
[pipeline]
name = "shop"
[source]
dsn = "host=127.0.0.1 port=1"
[transport]
url = "redis://127.0.0.1:1"
max_backlog_bytes = 104857600
[events.customer]
table = "public.customers"
columns = ["id"]
[sinks.billing]
type = "postgres"
dsn = "host=127.0.0.1 port=1"
[sinks.billing.tables]
customer = "replica.customers"
"""


def reader_config(directory: Path) -> ReaderConfig:
    """A reader's configuration whose servers cannot be reached."""
    return load_reader_config(_configuration(directory), {})


def sink_config(directory: Path) -> SinkConfig:
    """A sink's configuration whose servers cannot be reached."""
    return load_sink_config(_configuration(directory), {}, "billing")


def reader_and_watch(directory: Path) -> tuple[Reader, Watch]:
    """A reader in the middle of its work, and what is seen around it."""
    config = reader_config(directory)
    reader, watch = Reader(config), Watch(config)
    counters = reader.counters
    counters.published, counters.confirmed, counters.confirm_sent_at = LSN(900), LSN(800), time.monotonic()
    counters.entries["customer"] = 7
    counters.repeats["customer"] = 2
    counters.batch_answered(0.004)
    counters.failures.note(StatecastError("PLANTED"), 1.0)
    counters.events = {"customer.v1": False, "order.v1": True}
    counters.runs["customer.v1"] = Run("r", "customer.v1", "running", rows=5, share=0.5)
    reader.latest = replace(reader.latest, parked={"customer.v1": 2})
    watch.last_source = SourceSeen(LSN(1000), Slot("pgoutput", "d", LSN(800), LSN(700), "extended", 4711, 300, 200))
    watch.written.note(time.monotonic() - 10, LSN(900))
    watch.written.note(time.monotonic() - 3, LSN(1000))
    sinks = (SinkSeen("billing", 5.0, 100, 2.5),)
    watch.last_transport = TransportSeen(LSN(900), (("customer", 12, 3456),), sinks, Memory(700, 1000))
    reader.retention.trimmed["customer"] = 3
    found = [Unread("customer", "billing", "sink", 20, 0.0), Unread("customer", "audit", "external", 30, 60.0)]
    reader.retention._unread = time.monotonic(), found
    return reader, watch


def reader_collector(directory: Path) -> ReaderCollector:
    """The collector of such a reader."""
    return ReaderCollector("shop", *reader_and_watch(directory))


def sink_collector(directory: Path) -> SinkCollector:
    """The collector of a sink in the middle of its work."""
    config = sink_config(directory)
    worker = Worker(config, threading.Event())
    counters = worker.counters
    counters.streams["customer"] = StreamProgress(LSN(900), LSN(850), time.time() - 4)
    counters.rows["customer.v1", "upsert"] = 3
    counters.failures.note(StatecastError("PLANTED"), 1.0)
    worker.status.dead = 2
    return SinkCollector(worker, config)


def _configuration(directory: Path) -> Path:
    path = directory / "cdc.toml"
    path.write_text(CONFIGURATION)
    return path


def series(*collectors: Collector) -> Iterator[tuple[str, frozenset[str]]]:
    """Every name that an expression may use, with its labels."""
    for family in families(*collectors):
        for sample in family.samples:
            yield sample.name, frozenset(sample.labels)


def families(*collectors: Collector) -> Iterator[Metric]:
    """Every family of these collectors."""
    for collector in collectors:
        yield from collector.collect()
