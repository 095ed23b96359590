"""The Kubernetes manifests: by Kubernetes' own schemas, by what runs in them, and by what they may not do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from cdc.config import load_reader_config
from sinks.config import load_sink_config
from tests.deploy.files import METRICS_PORT, assert_runs, load, load_all

OLDEST = "1.27"
DOCUMENTS = load_all("kubernetes")
DEPLOYMENTS = {document["metadata"]["name"]: document for document in DOCUMENTS if document["kind"] == "Deployment"}
SINKS = {"statecast-sink-billing": "billing", "statecast-sink-search": "search"}

every_deployment = pytest.mark.parametrize("name", sorted(DEPLOYMENTS))


def pod(name: str) -> dict[str, Any]:
    specification: dict[str, Any] = DEPLOYMENTS[name]["spec"]["template"]["spec"]
    return specification


def container(name: str) -> dict[str, Any]:
    (only,) = pod(name)["containers"]
    assert isinstance(only, dict)
    return only


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_manifest_fits_the_schema_and_has_no_unknown_field(version: str) -> None:
    assert len(DOCUMENTS) == 10
    for document in DOCUMENTS:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_manifest_that_does_not_fit_would_be_noticed() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "ConfigMap", "date": {}}, OLDEST, strict=True)


def test_there_are_a_reader_with_a_standby_and_both_sinks() -> None:
    assert set(DEPLOYMENTS) == {"statecast-reader", *SINKS}
    assert DEPLOYMENTS["statecast-reader"]["spec"]["replicas"] == 2


@every_deployment
def test_it_runs_a_real_command(name: str) -> None:
    only = container(name)
    assert_runs([*only["command"], *only["args"]], sink=SINKS.get(name))
    assert only["image"] == load("compose.yaml")["services"]["reader"]["image"]


@every_deployment
def test_the_probes_ask_what_the_process_answers(name: str) -> None:
    only = container(name)
    ports = {port["name"]: port["containerPort"] for port in only["ports"]}
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        asked = only[probe]["httpGet"]
        assert (asked["path"], ports[asked["port"]]) == (path, METRICS_PORT)
    annotations = DEPLOYMENTS[name]["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(METRICS_PORT)}


@every_deployment
def test_it_keeps_to_the_restricted_pod_security_standard(name: str) -> None:
    of_pod, of_container = pod(name)["securityContext"], container(name)["securityContext"]
    assert of_pod["runAsNonRoot"] is True
    assert of_pod["runAsUser"] > 0
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert of_container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    assert all("hostPath" not in volume for volume in pod(name)["volumes"])
    assert set(container(name)["resources"]) == {"requests", "limits"}


@every_deployment
def test_selectors_labels_and_budgets_belong_together(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == deployment["metadata"]["labels"]
    (budget,) = [d for d in DOCUMENTS if d["kind"] == "PodDisruptionBudget" and d["metadata"]["name"] == name]
    assert budget["spec"]["selector"]["matchLabels"] == labels


@every_deployment
def test_what_is_mounted_is_a_volume_and_its_configuration_is_there(name: str) -> None:
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    assert {mount["name"] for mount in container(name)["volumeMounts"]} == set(volumes)
    maps = {document["metadata"]["name"] for document in DOCUMENTS if document["kind"] == "ConfigMap"}
    assert volumes["config"]["configMap"]["name"] in maps


def test_everything_is_in_the_namespace_and_no_secret_is_written_down() -> None:
    kinds = {document["kind"] for document in DOCUMENTS}
    assert kinds == {"Namespace", "ConfigMap", "Deployment", "PodDisruptionBudget"}
    for document in DOCUMENTS:
        assert document["metadata"].get("namespace", document["metadata"]["name"]) == "statecast"


@every_deployment
def test_the_configuration_is_accepted_with_the_secrets_mounted_as_files(name: str, tmp_path: Path) -> None:
    for secret, text in (
        ("source_dsn", "host=db.example user=cdc_reader password=x"),
        ("redis_url", "rediss://:x@redis.example:6379/0"),
        ("dsn", "host=replica.example user=sink password=x"),
    ):
        (tmp_path / secret).write_text(text)
    (config,) = [d for d in DOCUMENTS if d["kind"] == "ConfigMap" and d["metadata"]["name"] == name]
    path = tmp_path / "cdc.toml"
    path.write_text(config["data"]["cdc.toml"].replace("/run/secrets/statecast", str(tmp_path)))
    if (sink := SINKS.get(name)) is None:
        transport = load_reader_config(path, {}).transport
    else:
        transport = load_sink_config(path, {}, sink).transport
    assert transport.address.redis_tls() == {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    assert not re.search(r"password=\w|allow_plaintext", config["data"]["cdc.toml"])
