"""A pipeline over the workload's tables, on the session's servers or on a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import servers, workload
from tests.processes import Pipeline, closing


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """The workload's five tables mapped into one sink `copy`; nothing is started and the tables are not made yet."""
    configuration = workload.EVENTS + workload.SINK
    made = Pipeline(pipeline_name, source_dsn, redis_url, tmp_path, configuration, {"TARGET_DSN": target_dsn})
    with closing(made):
        yield made


@pytest.fixture
def embedded_only() -> None:
    """The test reaches into server processes."""
    if servers.use_docker():
        pytest.skip("needs embedded servers")
