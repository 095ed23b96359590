"""An event that a sink maps and nobody has published: a name written wrong is told, any other is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.integration.sink_harness import CUSTOMER, Pipeline, SinkProcess, command, customer, wait_until
from transforms.schema import SchemaDocument

ORDER = SchemaDocument("order", 1, "order", ("id",), CUSTOMER.columns)


@pytest.fixture
def pipeline(redis_url: str, target_dsn: str, pipeline_name: str) -> Iterator[Pipeline]:
    """A pipeline that publishes customers."""
    with Pipeline(redis_url, target_dsn, pipeline_name) as made:
        yield made


def test_a_name_written_wrong_is_told_by_run_status_check_and_tables(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.tables = {"custmer": "replica.customers"}
    config = pipeline.config_file(tmp_path)
    told = "no schema document is published yet of custmer (did you mean customer?)"
    began = time.time()
    with SinkProcess(config, "run") as sink:
        wait_until(lambda: told in str(pipeline.status().get("reason")), "the status says so")
        status = pipeline.status()
        assert sink.end() == 0
        _, _, log = sink.output()
    assert status["state"] == "starting"
    assert began - 1 < status["since"] < time.time()
    assert status["remedy"].startswith("Correct [sinks.billing.tables]")
    assert log.count(f"waiting: {told} (Correct [sinks.billing.tables]") == 1
    code, out, _ = command(config, "check")
    assert code == 1
    assert f"error    event custmer.v1: {told}" in out
    assert "Correct [sinks.billing.tables]" in out
    code, _, error = command(config, "tables")
    assert code == 3
    assert told in error


def test_an_event_that_is_still_to_be_published_is_waited_for(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.tables["order.v1"] = "replica.orders"
    pipeline.transaction(customer(1, "Ada"))
    with SinkProcess(pipeline.config_file(tmp_path), "run") as sink:
        wait_until(lambda: pipeline.status().get("reason"), "it waits")
        status = pipeline.status()
        assert (status["state"], status["reason"]) == ("starting", "no schema document is published yet of order")
        assert "start `cdc run`" in status["remedy"]
        pipeline.describe(ORDER)
        wait_until(lambda: pipeline.status().get("state") == "streaming", "it goes on by itself")
        wait_until(lambda: pipeline.customers() == {1: "Ada"}, "it applies")
        assert sink.end() == 0


def test_a_redis_user_who_may_not_list_events_is_told_all_but_the_guess(pipeline: Pipeline, tmp_path: Path) -> None:
    user = f"user_{pipeline.name}"
    acl: Any = cast(Any, pipeline.redis).execute_command
    acl("ACL", "SETUSER", user, "on", "nopass", "~*", "+@all", "-hkeys")
    try:
        pipeline.redis_url = pipeline.redis_url.replace("redis://", f"redis://{user}:x@")
        pipeline.tables = {"custmer": "replica.customers"}
        code, out, _ = command(pipeline.config_file(tmp_path), "check")
    finally:
        acl("ACL", "DELUSER", user)
    assert code == 1
    assert "no schema document is published yet of custmer (which there are is not told: Redis refuses" in out
    assert "hkeys" in out
