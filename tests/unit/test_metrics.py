"""What is measured, offline: names, labels and values against what is documented."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from cdc.metrics import ReaderCollector
from cdc.watch import STALE_SECONDS
from tests.metric_table import Documented, documented
from tests.monitored import families, reader_and_watch, reader_collector, sink_collector
from transforms.position import LSN

COMMON = {"reader": {"pipeline"}, "sink": {"pipeline", "sink"}}
MAKERS = {"reader": reader_collector, "sink": sink_collector}


def measured(of: str, collector: Collector) -> set[Documented]:
    return {
        Documented(
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            of,
            frozenset(family.samples[0].labels) - COMMON[of] - {"le"},
            family.documentation,
        )
        for family in families(collector)
    }


@pytest.mark.parametrize("of", ["reader", "sink"])
def test_the_documentation_has_every_metric_with_its_type_and_labels_and_no_other(of: str, tmp_path: Path) -> None:
    told = {line._replace(of=of) for line in documented() if line.of in (of, "both")}
    assert measured(of, MAKERS[of](tmp_path)) == told


def test_names_keep_to_the_conventions() -> None:
    for line in documented():
        assert line.name.endswith("_total") == (line.type == "counter"), line.name
        assert not line.name.endswith(("_milliseconds", "_ms", "_kb", "_mb", "_percent", "_count")), line.name


def values(collector: Collector) -> dict[str, float]:
    """The samples that have no label of their own."""
    return {
        sample.name: sample.value
        for family in families(collector)
        for sample in family.samples
        if set(sample.labels) <= {"pipeline", "sink"}
    }


def test_a_readers_figures_come_out_as_they_are(tmp_path: Path) -> None:
    found = values(reader_collector(tmp_path))
    assert found["statecast_reader_published_position_bytes"] == 900
    assert found["statecast_reader_lag_bytes"] == 100
    assert found["statecast_reader_lag_seconds"] == pytest.approx(3, abs=1)
    assert found["statecast_reader_batches_total"] == 1
    assert found["statecast_reader_publish_seconds_sum"] == pytest.approx(0.004)
    assert found["statecast_slot_retained_bytes"] == 300
    assert found["statecast_slot_limit_bytes"] == 500
    assert found["statecast_slot_safe_bytes"] == 200
    assert found["statecast_slot_left_seconds"] == pytest.approx(20, abs=2)  # 100 bytes in 10 seconds


def test_what_cannot_be_seen_is_left_out_and_never_zero(tmp_path: Path) -> None:
    reader, watch = reader_and_watch(tmp_path)
    watch.last_source = watch.last_transport = None
    found = values(ReaderCollector("shop", reader, watch))
    assert found["statecast_source_up"] == found["statecast_transport_up"] == 0
    assert not {
        name for name in found if name.startswith(("statecast_slot", "statecast_stream", "statecast_reader_lag"))
    }
    assert found["statecast_reader_published_position_bytes"] == 900


def test_a_server_that_hangs_is_not_told_by_what_it_answered_long_ago(tmp_path: Path) -> None:
    reader, watch = reader_and_watch(tmp_path)
    assert watch.last_source is not None
    watch.last_source = replace(watch.last_source, at=time.monotonic() - 2 * STALE_SECONDS)
    found = values(ReaderCollector("shop", reader, watch))
    assert found["statecast_source_up"] == 0
    assert "statecast_slot_retained_bytes" not in found


def test_a_standby_measures_by_what_the_working_reader_has_published(tmp_path: Path) -> None:
    reader, watch = reader_and_watch(tmp_path)
    reader.counters.published = LSN(5)  # from before another reader took over
    assert values(ReaderCollector("shop", reader, watch))["statecast_reader_lag_bytes"] == 100


def test_an_error_is_measured_by_its_class_alone(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(reader_collector(tmp_path))
    text = generate_latest(registry).decode()
    assert 'statecast_reader_failures_total{error="StatecastError",pipeline="shop"} 1.0' in text
    assert "PLANTED" not in text


def test_one_state_at_a_time(tmp_path: Path) -> None:
    for of, collector in ((of, make(tmp_path)) for of, make in MAKERS.items()):
        states = [
            sample
            for family in families(collector)
            for sample in family.samples
            if sample.name == f"statecast_{of}_state"
        ]
        assert [sample.labels["state"] for sample in states if sample.value] == ["starting"]
        assert len(states) == 7


def test_without_the_option_the_metrics_library_is_not_even_loaded() -> None:
    code = "import sys, cdc.cli, sinks.cli, sinks.worker; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
