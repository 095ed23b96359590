"""The HTTP server of both edges, around a reader and a worker that do not run."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import cdc.endpoint
import sinks.endpoint
from cdc.monitoring import monitored as monitored_reader
from cdc.pipeline import Reader
from sinks.monitoring import monitored as monitored_worker
from sinks.worker import Worker
from tests.monitored import reader_config, sink_config
from tests.scraping import Endpoint
from transforms.health import monitoring_application


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(reader_config(tmp_path))


@pytest.fixture
def of_reader(reader: Reader, tmp_path: Path) -> Iterator[Endpoint]:
    with monitored_reader(reader, reader_config(tmp_path), "127.0.0.1", 0) as port:
        yield Endpoint(f"http://127.0.0.1:{port}")


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(sink_config(tmp_path), threading.Event())


@pytest.fixture
def of_worker(worker: Worker, tmp_path: Path) -> Iterator[Endpoint]:
    with monitored_worker(worker, sink_config(tmp_path), "127.0.0.1", 0) as port:
        yield Endpoint(f"http://127.0.0.1:{port}")


def test_a_reader_whose_stream_hangs_is_neither_well_nor_ready(reader: Reader, of_reader: Endpoint) -> None:
    reader.pulse.beat("publisher", time.monotonic() + 1000)
    assert of_reader.get("/healthz") == (200, "ok\n")
    reader.pulse.beat("stream", time.monotonic() - 90)
    status, reason = of_reader.get("/healthz")
    assert (status, reason) == (503, "the stream has been silent for 90 s too long\n")


def test_a_worker_that_hangs_is_neither_well_nor_ready(worker: Worker, of_worker: Endpoint) -> None:
    worker.status.enter("standby")
    assert of_worker.get("/readyz") == (200, "ok\n")
    worker.pulse.beat("worker", time.monotonic() - 5)
    assert of_worker.get("/healthz")[0] == of_worker.get("/readyz")[0] == 503


def test_before_first_contact_neither_is_ready(of_reader: Endpoint, of_worker: Endpoint) -> None:
    assert of_reader.get("/readyz") == of_worker.get("/readyz") == (503, "starting\n")


def test_a_sink_that_does_not_know_its_lag_is_not_ready(worker: Worker, of_worker: Endpoint) -> None:
    worker.status.enter("streaming")
    assert of_worker.get("/readyz") == (503, "the lag of every stream is not known yet\n")


Serving = Callable[..., AbstractContextManager[int]]


@pytest.mark.parametrize("serving", [cdc.endpoint.serving, sinks.endpoint.serving])
def test_a_server_is_gone_with_its_block(serving: Serving) -> None:
    application = monitoring_application(lambda environ, start: [], lambda: None, lambda: None)
    before = threading.active_count()
    with serving(application, "127.0.0.1", 0) as port:
        assert Endpoint(f"http://127.0.0.1:{port}").get("/healthz") == (200, "ok\n")
    assert threading.active_count() == before
    with serving(application, "127.0.0.1", port) as again:
        assert again == port


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize("serving", [cdc.endpoint.serving, sinks.endpoint.serving])
def test_a_loopback_address_of_ipv6_works_too(serving: Serving) -> None:
    application = monitoring_application(lambda environ, start: [], lambda: None, lambda: None)
    with serving(application, "::1", 0) as port:
        assert Endpoint(f"http://[::1]:{port}").get("/readyz") == (200, "ok\n")


@pytest.mark.parametrize("module", [cdc.endpoint, sinks.endpoint], ids=["cdc", "sinks"])
@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no such host", 0), ("127.0.0.1", 70_000)])
def test_an_address_that_cannot_be_had_is_refused_with_a_remedy(module: object, host: str, port: int) -> None:
    application = monitoring_application(lambda environ, start: [], lambda: None, lambda: None)
    with (
        pytest.raises(module.EndpointUnavailable, match=f"{host} port {port}"),  # type: ignore[attr-defined]
        module.serving(application, host, port),  # type: ignore[attr-defined]
    ):
        raise AssertionError("it serves")
