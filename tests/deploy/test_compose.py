"""compose.yaml: what its services run, wait for, show to the outside and are told in secret."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from cdc.config import load_reader_config
from sinks.config import load_sink_config
from tests.deploy.files import DEPLOY, assert_runs, load
from tests.processes import Pipeline, closing

COMPOSE: dict[str, Any] = load("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"reader": None, "sink-billing": "billing", "sink-search": "search"}
PIPELINE = (DEPLOY / "compose" / "pipeline.toml").read_text()


def test_our_services_run_real_commands_on_one_image() -> None:
    for name, sink in OURS.items():
        assert_runs(SERVICES[name]["command"], sink=sink)
        assert SERVICES[name]["image"] == "statecast:0.1.0"
    build = SERVICES["reader"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_our_services_may_do_nothing_but_their_work() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in service


def test_everything_published_is_on_loopback() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 5
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)


def test_every_image_has_a_tag_and_none_is_latest() -> None:
    for service in SERVICES.values():
        assert re.fullmatch(r"[a-z]+(/[a-z]+)?:v?\d+(\.\d+)*", service["image"])


def test_a_service_waits_for_services_that_can_say_that_they_are_healthy() -> None:
    for service in SERVICES.values():
        for other, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert "healthcheck" in SERVICES[other] or other in OURS  # the image brings its own


def test_everything_that_is_named_is_declared_and_every_file_is_there() -> None:
    for kind in ("secrets", "configs"):
        used = {
            item if isinstance(item, str) else item["source"] for one in SERVICES.values() for item in one.get(kind, [])
        }
        assert used == set(COMPOSE[kind])
    mounts = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    for source, *_ in mounts:
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert (DEPLOY / COMPOSE["configs"]["pipeline"]["file"]).exists()


def test_each_service_is_given_the_secrets_that_its_sections_name_and_no_others() -> None:
    for name, sink in OURS.items():
        sections = re.split(r"^(?=\[)", PIPELINE, flags=re.MULTILINE)
        wanted = ("[transport]", f"[sinks.{sink}]") if sink else ("[transport]", "[source]")
        text = "".join(section for section in sections if section.startswith(wanted))
        assert set(SERVICES[name]["secrets"]) == set(re.findall(r"\$\{file:/run/secrets/(\w+)\}", text))


def test_no_secret_is_in_an_environment() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key:
                assert re.fullmatch(r"/run/secrets/\w+", value)
                assert Path(value).name in service["secrets"]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """Secrets as the script makes them."""
    script = tmp_path / "make-secrets.sh"
    script.write_text((DEPLOY / "compose" / "make-secrets.sh").read_text())
    subprocess.run(["sh", str(script)], check=True, timeout=120)
    return tmp_path / "secrets"


def test_the_script_makes_every_secret_once(secrets: Path) -> None:
    files = {declared["file"].removeprefix("./compose/secrets/") for declared in COMPOSE["secrets"].values()}
    assert {path.name for path in secrets.iterdir()} == files
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    assert all(re.fullmatch("[0-9a-f]{48}", text) for text in before.values())
    assert len(set(before.values())) == len(before)
    subprocess.run(["sh", str(secrets.parent / "make-secrets.sh")], check=True, timeout=120)
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before


def test_the_configuration_is_accepted_by_every_service_that_reads_it(secrets: Path, tmp_path: Path) -> None:
    path = tmp_path / "cdc.toml"
    path.write_text(PIPELINE.replace("/run/secrets", str(secrets)))
    reader = load_reader_config(path, {})
    assert f"password={(secrets / 'reader_password').read_text()}" in reader.source.dsn.reveal()
    hosts = set(re.findall(r"host=([\w-]+)", PIPELINE)) | {"redis"}
    for sink in filter(None, OURS.values()):
        tables = load_sink_config(path, {}, sink).tables
        assert set(tables) <= {event.label for event in reader.events}
    assert hosts <= set(SERVICES)


@pytest.fixture
def shop(source_dsn: str, target_dsn: str, redis_url: str, pipeline_name: str, tmp_path: Path) -> Iterator[Pipeline]:
    """The compose file's source and pipeline on the tests' servers, read with the role that its script makes."""
    script = (DEPLOY / "compose" / "source.sh").read_text()
    statements = script.split("<<'SQL'\n")[1].removesuffix("SQL\n").replace(":'password'", "'secret'")
    configuration = PIPELINE[PIPELINE.index("[events.customer]") : PIPELINE.index("[sinks.search]")]
    configuration = re.sub(r"^dsn = .*$", 'dsn = "${BILLING_DSN}"', configuration, flags=re.MULTILINE)
    as_reader = make_conninfo(source_dsn, user="cdc_reader", password="secret")
    with psycopg.connect(source_dsn, autocommit=True) as connection:
        connection.execute(statements.replace("cdc_shop", f"cdc_{pipeline_name}").encode())
        try:
            environment = {"BILLING_DSN": target_dsn}
            with closing(Pipeline(pipeline_name, as_reader, redis_url, tmp_path, configuration, environment)) as made:
                yield made
        finally:
            connection.execute("DROP OWNED BY cdc_reader")
            connection.execute("DROP ROLE cdc_reader")


@pytest.mark.integration
def test_the_sources_script_makes_all_that_its_pipeline_needs(shop: Pipeline, target_dsn: str) -> None:
    shop.run("cdc.cli", "run", "--once")
    shop.run("sinks.cli", "run", "billing", "--once")
    with psycopg.connect(target_dsn) as connection:
        counted = connection.execute(
            "SELECT (SELECT count(*) FROM replica.customers), (SELECT count(*) FROM replica.orders)"
        ).fetchone()
    assert counted == (1000, 5000)
