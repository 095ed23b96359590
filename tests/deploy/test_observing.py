"""Prometheus' configuration, the alert rules and the dashboard: every name and label in them is measured."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, METRICS_PORT, load
from tests.monitored import reader_collector, series, sink_collector

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "statecast.json").read_text())
RULES: list[dict[str, Any]] = [rule for group in load("prometheus/alerts.yml")["groups"] for rule in group["rules"]]
FROM_PROMETHEUS = {"instance", "job"}
SELECTOR = re.compile(r"\b(statecast_\w+)(?:\{([^}]*)\})?")
WRAPPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Where an expression stands, and the expression."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], re.sub(r"^label_values\((\w+), (\w+)\)$", r"sum by (\2) (\1)", variable["definition"])


@pytest.fixture
def measured(tmp_path: Path) -> dict[str, set[str]]:
    """Name -> labels that it has somewhere."""
    found: dict[str, set[str]] = {}
    for name, labels in series(reader_collector(tmp_path), sink_collector(tmp_path)):
        found.setdefault(name, set()).update(labels)
    return found


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_an_expression_uses_what_is_measured(where: str, expression: str, measured: dict[str, set[str]]) -> None:
    selectors = SELECTOR.findall(expression)
    assert selectors
    for name, matchers in selectors:
        assert name in measured
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            assert label in measured[name] | FROM_PROMETHEUS, name
    shared = set.intersection(*(measured[name] for name, _ in selectors)) | FROM_PROMETHEUS
    for labels in WRAPPED.findall(expression):
        assert {label.strip() for label in labels.split(",")} <= shared


def test_states_and_statuses_in_expressions_are_real(tmp_path: Path) -> None:
    collectors = (reader_collector(tmp_path), sink_collector(tmp_path))
    known = {
        (sample.name, label, value)
        for collector in collectors
        for family in collector.collect()
        for sample in family.samples
        for label, value in sample.labels.items()
    }
    for _, expression in expressions():
        for name, matchers in SELECTOR.findall(expression):
            for label, values in re.findall(r'\b(state|status)=~?"([^"]*)"', matchers):
                assert {(name, label, value) for value in values.split("|")} <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_the_matter_and_how_grave_it_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"]["summary"]
    grouped = {label for labels in WRAPPED.findall(rule["expr"]) for label in re.split(r",\s*", labels)}
    used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert used <= grouped


def test_alerts_watch_everything_that_can_fail() -> None:
    watched = {name for rule in RULES for name, _ in SELECTOR.findall(rule["expr"])}
    assert watched >= {
        "statecast_reader_state",
        "statecast_reader_lag_seconds",
        "statecast_slot_safe_bytes",
        "statecast_sink_dead_events",
        "statecast_sink_state",
        "statecast_consumer_lag_seconds",
        "statecast_reader_snapshot_rows",
        "statecast_reader_blocked",
        "statecast_consumer_holding_seconds",
        "statecast_transport_memory_used_bytes",
        "statecast_retention_failing",
        "statecast_reader_event_stopped",
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_own_tool_finds_the_rules_right_and_alarming_when_they_should() -> None:
    folder = DEPLOY / "prometheus"
    for arguments in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        subprocess.run(["promtool", *arguments], cwd=folder, check=True, timeout=120)


def test_the_scenarios_for_that_tool_are_about_rules_and_metrics_that_there_are(measured: dict[str, set[str]]) -> None:
    for scenario in load("prometheus/alerts_test.yml")["tests"]:
        for given in scenario["input_series"]:
            ((name, matchers),) = SELECTOR.findall(given["series"])
            assert set(re.findall(r"(\w+)=", matchers)) <= measured[name] | FROM_PROMETHEUS
        assert {asked["alertname"] for asked in scenario["alert_rule_test"]} <= {rule["alert"] for rule in RULES}


def test_every_process_of_the_compose_file_is_scraped() -> None:
    prometheus, services = load("prometheus/prometheus.yml"), load("compose.yaml")["services"]
    targets = {
        target for job in prometheus["scrape_configs"] for one in job["static_configs"] for target in one["targets"]
    }
    ours = {name for name, service in services.items() if service["image"].startswith("statecast:")}
    assert targets == {f"{name}:{METRICS_PORT}" for name in ours}
    (mount,) = [one for one in services["prometheus"]["volumes"] if one.startswith("./prometheus")]
    (rules,) = prometheus["rule_files"]
    inside = mount.split(":")[1]
    assert rules.startswith(inside)
    assert (DEPLOY / "prometheus" / Path(rules).name).exists()


def test_the_dashboard_has_a_row_for_each_part_and_no_panels_that_overlap() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Source and slot", "Reader", "Streams", "Sinks"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_every_panel_has_a_unit_a_description_and_the_provisioned_source() -> None:
    (source,) = load("grafana/datasource.yaml")["datasources"]
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["description"], panel["title"]
        for asked in (panel, *panel["targets"]):
            assert asked["datasource"] == {"type": source["type"], "uid": source["uid"]}
    host, port = re.fullmatch(r"http://([\w-]+):(\d+)", source["url"]).groups()  # type: ignore[union-attr]
    assert load("compose.yaml")["services"][host]["ports"] == [f"127.0.0.1:{port}:{port}"]


def test_the_dashboard_is_where_grafana_looks_for_it() -> None:
    grafana = load("compose.yaml")["services"]["grafana"]
    (provider,) = load("grafana/dashboards.yaml")["providers"]
    mounted = [volume.split(":")[1] for volume in grafana["volumes"]]
    path = f"{provider['options']['path']}/statecast.json"
    assert path in mounted
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == path
