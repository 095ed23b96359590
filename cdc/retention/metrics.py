"""What retention does and who holds streams back, as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import Metric

from cdc.retention.judging import Memory
from cdc.retention.keeper import Retention
from transforms.metric_families import Families

_READER = ("stream", "consumer", "kind")


def retention_metrics(families: Families, retention: Retention, memory: Memory | None) -> Iterator[Metric]:
    """All there are. `memory`: Redis', None where it does not answer."""
    yield families.gauge(
        "statecast_reader_blocked",
        "1 while publishing waits for who is beyond transport.max_backlog_bytes.",
        float(retention.blocking.blocked is not None),
    )
    yield families.gauge(
        "statecast_retention_failing", "1 while streams cannot be trimmed.", float(retention.failure is not None)
    )
    yield families.counter(
        "statecast_retention_trimmed_entries", "Entries trimmed.", retention.trimmed.copy(), "stream"
    )
    unread = retention.unread(time.monotonic()) or ()
    yield families.gauge(
        "statecast_consumer_unread_bytes",
        "Redis' memory for what a sink or consumer group has not read, of each stream's ten farthest behind.",
        {each[:3]: each.size_bytes for each in unread},
        _READER,
    )
    yield families.gauge(
        "statecast_consumer_holding_seconds",
        "For how long entries have been kept that would be gone without this reader, at least.",
        {each[:3]: each.holding_seconds for each in unread},
        _READER,
    )
    yield families.gauge(
        "statecast_consumer_limit_bytes",
        "What one reader of a stream may have unread (transport.max_backlog_bytes), where limited.",
        retention.limit_bytes,
    )
    yield families.gauge("statecast_transport_memory_used_bytes", "Memory that Redis uses.", memory and memory.used)
    yield families.gauge(
        "statecast_transport_memory_limit_bytes",
        "Memory that Redis may use (maxmemory), where limited.",
        (memory and memory.limit) or None,
    )
