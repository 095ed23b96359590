"""`--metrics-port`: what real processes say of themselves while they work, wait, and cannot work."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.demo.servers import ValkeyServer
from tests.metric_table import documented
from tests.processes import Command, Pipeline, closing, wait_until
from tests.scraping import Endpoint
from transforms.command_line import STOP_SECONDS

CONFIGURATION = """
[events.customer]
table = "customers"
columns = ["id", "name"]
[sinks.billing]
type = "postgres"
dsn = "${TARGET_DSN}"
[sinks.billing.tables]
customer = "replica.customers"
"""


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer.start() as started:
        yield started


@pytest.fixture
def transport_options() -> str:
    """What the pipeline's [transport] has beside its URL."""
    return "confirm_delay_seconds = 0.3"


@pytest.fixture
def shop(
    source_dsn: str, target_dsn: str, valkey: ValkeyServer, pipeline_name: str, tmp_path: Path, transport_options: str
) -> Iterator[Pipeline]:
    """A table of a hundred customers, mapped; nothing is started."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute("CREATE TABLE customers (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO customers SELECT i, 'PLANTED' || i FROM generate_series(1, 100) i")
    environment = {"TARGET_DSN": make_conninfo(target_dsn, password="PLANTED")}
    source_dsn = make_conninfo(source_dsn, password="PLANTED")
    shop = Pipeline(
        pipeline_name,
        source_dsn,
        valkey.url(),
        tmp_path,
        CONFIGURATION,
        environment,
        transport_options=transport_options,
    )
    with closing(shop) as made:
        yield made


def monitored(command: Command) -> Endpoint:
    endpoint = Endpoint.of(command)
    wait_until_ready(endpoint)
    return endpoint


def wait_until_ready(endpoint: Endpoint) -> None:
    wait_until("it to be ready", lambda: endpoint.get("/readyz") == (200, "ok\n"))


def wait_until_unready(endpoint: Endpoint) -> str:
    """Returns the reason."""
    answers: list[tuple[int, str]] = []

    def unready() -> bool:
        answers.append(endpoint.get("/readyz"))
        return answers[-1][0] == 503

    wait_until("it not to be ready", unready)
    return answers[-1][1]


@pytest.fixture
def reader(shop: Pipeline) -> Endpoint:
    return monitored(shop.reader("--metrics-port", "0"))


@pytest.fixture
def sink(shop: Pipeline, reader: Endpoint) -> Endpoint:
    endpoint = monitored(shop.sink("billing", "--metrics-port", "0"))
    settle(shop)
    return endpoint


def settle(shop: Pipeline) -> None:
    shop.wait_published()
    shop.wait_applied(shop.environment["TARGET_DSN"], "billing")


def write(shop: Pipeline, statement: str, times: int = 1) -> None:
    with psycopg.connect(shop.source_dsn, autocommit=True) as connection:
        for _ in range(times):
            connection.execute(statement.encode())


def process(shop: Pipeline, log: str) -> Command:
    return next(command for command in shop.commands if command.log.name == f"{log}.log")


def test_a_load_is_counted_by_both_ends(shop: Pipeline, reader: Endpoint, sink: Endpoint) -> None:
    name = shop.name
    before = reader.value("statecast_reader_entries_total", pipeline=name, stream="customer") or 0
    write(shop, "UPDATE customers SET name = name || '.'", times=5)
    write(shop, "DELETE FROM customers WHERE id <= 10")
    settle(shop)
    wait_until(
        "610 less 100 entries more",
        lambda: reader.value("statecast_reader_entries_total", stream="customer") == before + 510,
    )
    assert (reader.value("statecast_reader_batches_total") or 0) >= 1
    assert reader.value("statecast_reader_publish_seconds_count") == reader.value("statecast_reader_batches_total")
    assert reader.value("statecast_reader_state", state="streaming") == 1
    assert reader.value("statecast_reader_state", state="reconnecting") == 0
    assert reader.value("statecast_reader_snapshot_rows", event="customer.v1") == 100
    assert reader.value("statecast_reader_snapshot_ratio", event="customer.v1") == 1
    wait_until("10 deletes", lambda: sink.value("statecast_sink_rows_total", table="replica.customers", kind="delete"))
    assert sink.value("statecast_sink_rows_total", kind="delete") == 10
    assert (sink.value("statecast_sink_rows_total", kind="upsert") or 0) >= 100
    assert sink.value("statecast_sink_apply_seconds_count") == sink.value("statecast_sink_batches_total")
    assert (sink.value("statecast_sink_delay_seconds_sum") or -1) > 0
    assert sink.value("statecast_sink_dead_events") == 0


def test_the_endpoints_have_what_is_documented_and_nothing_else(reader: Endpoint, sink: Endpoint) -> None:
    wait_until("the slot to be looked at", partial(reader.has, "statecast_slot_active", 1))
    for of, endpoint in (("reader", reader), ("sink", sink)):
        assert endpoint.names() == {line.name for line in documented() if line.of in (of, "both")}
        assert (endpoint.value("process_resident_memory_bytes") or 0) > 0


def test_an_idle_pipeline_settles_at_no_lag_though_other_tables_are_written(
    shop: Pipeline, reader: Endpoint, sink: Endpoint
) -> None:
    write(shop, "CREATE TABLE unmapped (id int)")
    write(shop, "INSERT INTO unmapped VALUES (1)", times=20)
    for endpoint, metric in (
        (reader, "statecast_reader_lag_seconds"),
        (reader, "statecast_reader_lag_bytes"),
        (reader, "statecast_consumer_lag_seconds"),
        (sink, "statecast_sink_lag_seconds"),
        (sink, "statecast_sink_lag_bytes"),
    ):
        wait_until(f"{metric} to be zero", partial(endpoint.has, metric, 0))


def test_the_slot_and_the_streams_are_seen_from_outside(shop: Pipeline, reader: Endpoint) -> None:
    shop.wait_published()
    wait_until("the slot to be looked at", partial(reader.has, "statecast_slot_active", 1))
    assert (reader.value("statecast_slot_retained_bytes") or 0) > 0
    assert reader.value("statecast_slot_wal_status", status="reserved") == 1
    assert reader.value("statecast_slot_safe_bytes") is None  # nothing limits it
    assert (reader.value("statecast_source_position_bytes") or 0) > 0
    wait_until("the entries", lambda: (reader.value("statecast_stream_entries", stream="customer") or 0) >= 100)
    assert (reader.value("statecast_stream_size_bytes", stream="customer") or 0) > 0


@pytest.mark.any_version
def test_the_lag_of_a_halted_sink_rises_at_the_reader_and_falls_afterwards(
    shop: Pipeline, reader: Endpoint, sink: Endpoint
) -> None:
    halted = process(shop, "sink-billing")
    halted_at = reader.value("statecast_consumer_seen_timestamp_seconds", sink="billing")
    os.kill(halted.pid, signal.SIGSTOP)
    try:
        write(shop, "UPDATE customers SET name = name || '.'", times=20)
        wait_until(
            "the lag in bytes", lambda: (reader.value("statecast_consumer_lag_bytes", sink="billing") or 0) > 10_000
        )
        wait_until(
            "the lag in seconds", lambda: (reader.value("statecast_consumer_lag_seconds", sink="billing") or 0) > 3
        )
    finally:
        os.kill(halted.pid, signal.SIGCONT)
    wait_until("no lag", lambda: reader.value("statecast_consumer_lag_seconds", sink="billing") == 0)
    assert sink.value("statecast_sink_lag_seconds", stream="customer") == 0
    assert (reader.value("statecast_consumer_seen_timestamp_seconds", sink="billing") or 0) > (halted_at or 0)


def test_a_sink_that_waits_for_a_lock_tells_its_own_lag(shop: Pipeline, reader: Endpoint, sink: Endpoint) -> None:
    with psycopg.connect(shop.environment["TARGET_DSN"]) as holder:
        holder.execute("LOCK TABLE replica.customers")
        write(shop, "UPDATE customers SET name = 'locked'")
        wait_until("its lag to rise", lambda: (sink.value("statecast_sink_lag_seconds", stream="customer") or 0) > 1)
        assert (sink.value("statecast_sink_lag_bytes", stream="customer") or 0) > 0
        assert sink.get("/healthz") == (200, "ok\n")
        holder.rollback()
    wait_until("its lag to fall", lambda: sink.value("statecast_sink_lag_seconds", stream="customer") == 0)


def test_without_redis_neither_is_ready_and_both_are_again_afterwards(
    shop: Pipeline, reader: Endpoint, sink: Endpoint, valkey: ValkeyServer
) -> None:
    valkey.stop()
    for endpoint in (reader, sink):
        reason = wait_until_unready(endpoint)
        assert reason.startswith("reconnecting: Redis does not answer")
        assert reason.count("\n") == 1
        assert endpoint.get("/healthz") == (200, "ok\n")
    wait_until("the reader's watch to notice", partial(reader.has, "statecast_transport_up", 0))
    assert reader.value("statecast_reader_state", state="reconnecting") == 1
    assert (reader.value("statecast_reader_failures_total", error="TransportUnreachable") or 0) >= 1
    assert reader.value("statecast_reader_last_failure_timestamp_seconds", error="TransportUnreachable")
    valkey.start_again()
    for endpoint in (reader, sink):
        wait_until_ready(endpoint)
    assert reader.value("statecast_reader_reconnects_total") == 1
    assert sink.value("statecast_sink_reconnects_total") == 1


def test_a_second_reader_is_ready_as_a_standby(shop: Pipeline, reader: Endpoint) -> None:
    standby = shop.command("cdc.cli", "run", "--metrics-port", "0", log="standby")
    standby.start()
    endpoint = monitored(standby)
    assert endpoint.value("statecast_reader_state", state="standby") == 1
    process(shop, "reader").kill()
    wait_until("it to take over", lambda: endpoint.value("statecast_reader_state", state="streaming") == 1)
    assert endpoint.get("/readyz") == (200, "ok\n")


@pytest.mark.any_version
@pytest.mark.parametrize(
    "transport_options", ['confirm_delay_seconds = 0.3\nretain = "0s"\nmax_backlog_bytes = 16777216']
)
def test_who_holds_a_stream_back_and_what_comes_of_it_is_measured(
    shop: Pipeline, reader: Endpoint, sink: Endpoint, valkey: ValkeyServer
) -> None:
    key, audit = shop.keys.stream("customer", 1), {"stream": "customer", "consumer": "audit", "kind": "external"}
    wait_until("what is read to be trimmed", lambda: shop.redis.xlen(key) == 1)
    assert (reader.value("statecast_retention_trimmed_entries_total", stream="customer") or 0) >= 100
    assert reader.value("statecast_consumer_limit_bytes") == 16777216
    wait_until(
        "the sink to hold nothing",
        lambda: reader.value("statecast_consumer_holding_seconds", consumer="billing", kind="sink") == 0,
    )
    shop.redis.xgroup_create(key, "audit", "$")
    write(shop, "UPDATE customers SET name = repeat('x', 200000)")
    wait_until("it to hold", lambda: (reader.value("statecast_consumer_holding_seconds", **audit) or 0) > 1)
    wait_until("its memory", lambda: (reader.value("statecast_consumer_unread_bytes", **audit) or 0) > 16777216)
    wait_until("publishing to wait", partial(reader.has, "statecast_reader_blocked", 1))
    assert reader.get("/readyz") == (200, "ok\n")
    shop.run("cdc.cli", "forget", "audit", "--yes")
    wait_until("publishing to go on", partial(reader.has, "statecast_reader_blocked", 0))
    wait_until("its series to be gone", lambda: reader.value("statecast_consumer_holding_seconds", **audit) is None)
    assert reader.has("statecast_retention_failing", 0)
    shop.redis.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-xtrim"])
    write(shop, "UPDATE customers SET name = 'Ada'")
    wait_until("trimming to fail", partial(reader.has, "statecast_retention_failing", 1))
    shop.redis.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all"])
    wait_until("trimming to work", partial(reader.has, "statecast_retention_failing", 0))
    assert reader.value("statecast_transport_memory_limit_bytes") is None
    shop.redis.config_set("maxmemory", 1 << 30)
    wait_until("the limit", partial(reader.has, "statecast_transport_memory_limit_bytes", 1 << 30))
    assert 0 < (reader.value("statecast_transport_memory_used_bytes") or 0) < 1 << 30


def test_nothing_secret_and_no_value_is_measured(shop: Pipeline, reader: Endpoint, sink: Endpoint) -> None:
    for endpoint in (reader, sink):
        for path in ("/metrics", "/healthz", "/readyz", "/", "/metrics?x=1"):
            assert "PLANTED" not in endpoint.get(path)[1]
    assert reader.get("/")[0] == 404


@pytest.mark.parametrize("arguments", [("cdc.cli", "run"), ("sinks.cli", "run", "billing")])
def test_a_port_that_is_taken_is_one_message_with_a_remedy(shop: Pipeline, arguments: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        output = shop.run(*arguments, "--metrics-port", str(port), expect=2)
    assert output.splitlines() == [
        f"error: metrics cannot be served on 127.0.0.1 port {port}: Address already in use",
        "  remedy: Choose another --metrics-port (0 takes a free one) or --metrics-host.",
    ]
    assert shop.redis.dbsize() == 0


def test_an_orderly_end_is_not_held_up(shop: Pipeline, reader: Endpoint, sink: Endpoint) -> None:
    for log in ("sink-billing", "reader"):
        began = time.monotonic()
        assert process(shop, log).terminate() == 0
        assert time.monotonic() - began < STOP_SECONDS
        assert "ending without" not in process(shop, log).output


def test_without_the_option_nothing_listens(shop: Pipeline) -> None:
    reader = shop.reader()
    shop.wait_published()
    listening = [one for one in psutil.Process(reader.pid).net_connections() if one.status == psutil.CONN_LISTEN]
    assert listening == []
