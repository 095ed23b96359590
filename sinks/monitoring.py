"""What a sink says of itself over HTTP while it runs: its metrics, whether it works, whether it is ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from sinks.config import SinkConfig
from sinks.endpoint import serving
from sinks.metrics import SinkCollector
from sinks.worker import Worker
from transforms.health import monitoring_application, overdue_reason

APPLYING = ("streaming", "snapshotting")


@contextmanager
def monitored(worker: Worker, config: SinkConfig, host: str, port: int) -> Iterator[int]:
    """Serve `/metrics`, `/healthz` and `/readyz` of a worker until the block ends; gives the port.

    Raises EndpointUnavailable before anything is started.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(SinkCollector(worker, config))

    def healthy() -> str | None:
        return overdue_reason(worker.pulse.overdue(time.monotonic()))

    def ready() -> str | None:
        status = worker.status
        if status.state == "standby":
            return healthy()
        if status.state not in APPLYING:
            return f"{status.state}: {status.reason}" if status.reason else status.state
        now, streams = time.time(), worker.counters.streams.copy()
        unknown = [name for name, stream in streams.items() if stream.lag_seconds(now) is None]
        if unknown or not streams:
            return f"the lag of {', '.join(unknown) or 'every stream'} is not known yet"
        return healthy()

    with serving(monitoring_application(make_wsgi_app(registry), healthy, ready), host, port) as bound:
        yield bound
