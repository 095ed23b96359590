"""Fixtures and rules for all tests. Which servers are used is said in tests/servers.py."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings

from tests import servers

settings.register_profile("tests", deadline=None)  # of a busy machine, slowness tells nothing
settings.load_profile("tests")

_HERE = Path(__file__).parent
_INTEGRATION_FOLDERS = (_HERE / "integration", _HERE / "end_to_end", _HERE / "faults", _HERE / "types")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.Postgres]:
    """One Postgres for the whole session, with logical decoding. Tests that stop or kill it start their own."""
    with servers.postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Redis]:
    """One Valkey or Redis for the whole session. Tests that stop or kill it start their own."""
    with servers.redis_server() as server:
        yield server


@pytest.fixture
def source_dsn(postgres_server: servers.Postgres) -> Iterator[str]:
    """A fresh database to read changes from; dropped afterwards with its slots."""
    with servers.database(postgres_server, "source") as dsn:
        yield dsn


@pytest.fixture
def target_dsn(postgres_server: servers.Postgres) -> Iterator[str]:
    """A fresh database to apply events to; dropped afterwards."""
    with servers.database(postgres_server, "target") as dsn:
        yield dsn


@pytest.fixture
def redis_url(redis_server: servers.Redis) -> str:
    """The session's Redis, emptied."""
    servers.flush(redis_server.url())
    return redis_server.url()


@pytest.fixture
def pipeline_name() -> str:
    """A name no other test uses: [a-z][a-z0-9_]{0,30}."""
    return f"test_{uuid4().hex[:12]}"


def pytest_sessionstart() -> None:
    """Before any server is started."""
    servers.keep_in_memory()


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in _INTEGRATION_FOLDERS):
            item.add_marker(pytest.mark.integration)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.get_closest_marker("integration") is not None:
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if any(collector.path.is_relative_to(folder) for folder in _INTEGRATION_FOLDERS):
        _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: Any) -> None:
    """In CI a skipped integration test is a test that silently stopped protecting us."""
    if os.environ.get("CI") in ("1", "true") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow for integration tests: {report.longrepr}"
