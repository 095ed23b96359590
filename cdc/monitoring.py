"""What a reader says of itself over HTTP while it runs: its metrics, whether it works, whether it is ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app

from cdc.config import ReaderConfig
from cdc.endpoint import serving
from cdc.metrics import ReaderCollector
from cdc.pipeline import Reader
from cdc.watch import Watch
from transforms.health import monitoring_application, overdue_reason

READY = ("streaming", "snapshotting", "paused", "standby")


@contextmanager
def monitored(reader: Reader, config: ReaderConfig, host: str, port: int) -> Iterator[int]:
    """Serve `/metrics`, `/healthz` and `/readyz` of a reader until the block ends; gives the port.

    Raises EndpointUnavailable before anything is started.
    """
    watch = Watch(config)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(ReaderCollector(config.pipeline.name, reader, watch))

    def healthy() -> str | None:
        return overdue_reason(reader.pulse.overdue(time.monotonic()))

    def ready() -> str | None:
        figures = reader.latest
        if figures.state in READY:
            return healthy()
        return f"{figures.state}: {figures.reason}" if figures.reason else figures.state

    with serving(monitoring_application(make_wsgi_app(registry), healthy, ready), host, port) as bound:
        watch.start()
        try:
            yield bound
        finally:
            watch.close()
