"""A Redis without memory: sinks read on, for what they have read is what can go."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cdc.demo.servers import ValkeyServer
from sinks.worker import Worker
from tests.integration.sink_harness import Pipeline, customer, wait_until


def group_at(pipeline: Pipeline) -> str:
    (group,) = pipeline.redis.xinfo_groups(pipeline.keys.stream("customer", 1))
    return str(group["last-delivered-id"].decode())


def test_a_full_redis_is_read_to_its_end_and_the_group_follows(target_dsn: str, pipeline_name: str) -> None:
    with ValkeyServer.start() as server, Pipeline(server.url(), target_dsn, pipeline_name) as pipeline:
        pipeline.transaction(customer(1, "a"))
        assert pipeline.apply() == 0
        newest = [pipeline.transaction(customer(id_, "b")) for id_ in range(2, 50)][-1]
        pipeline.redis.config_set("maxmemory", 1)
        assert pipeline.apply() == 0
        assert len(pipeline.customers()) == 49
        assert group_at(pipeline) == newest


def test_a_sink_that_runs_while_redis_fills_up_goes_on_and_tells_of_itself_later(
    target_dsn: str, pipeline_name: str
) -> None:
    with ValkeyServer.start() as server, Pipeline(server.url(), target_dsn, pipeline_name) as pipeline:
        stop = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            worker = Worker(pipeline.config(), stop)
            running = thread.submit(worker.run)
            pipeline.transaction(customer(1, "a"))
            wait_until(lambda: pipeline.status().get("state") == "streaming", "it runs")
            newest = pipeline.transaction(customer(2, "b"))
            pipeline.redis.config_set("maxmemory", 1)
            wait_until(lambda: group_at(pipeline) == newest, "it reads on")
            assert worker.status.state == "streaming"
            pipeline.redis.config_set("maxmemory", 0)
            newest = pipeline.transaction(customer(3, "c"))
            wait_until(lambda: pipeline.status()["streams"] == {"customer": newest}, "it tells of itself")
            stop.set()
            assert running.result() == 0
        assert not worker.counters.failures.counts


def test_a_sink_that_joins_waits_until_there_is_memory(target_dsn: str, pipeline_name: str) -> None:
    with ValkeyServer.start() as server, Pipeline(server.url(), target_dsn, pipeline_name) as pipeline:
        pipeline.transaction(customer(1, "a"))
        pipeline.redis.config_set("maxmemory", 1)
        stop = threading.Event()
        with ThreadPoolExecutor(1) as thread:
            worker = Worker(pipeline.config(), stop)
            running = thread.submit(worker.run)
            wait_until(lambda: "out of memory" in str(worker.status.reason), "it says why it waits")
            assert "CONFIG SET maxmemory" in str(worker.status.remedy)
            pipeline.redis.config_set("maxmemory", 0)
            wait_until(lambda: worker.counters.batches, "it applies")
            stop.set()
            assert running.result() == 0
        assert pipeline.customers() == {1: "a"}
