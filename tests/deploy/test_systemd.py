"""The systemd units: what they start, what they may do, and when they start again."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY, parsed
from transforms.command_line import STOP_SECONDS
from transforms.errors import EXIT_NEEDS_PERSON, EXIT_USAGE

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXPOSURE = 20
"""What `systemd-analyze security` may find at most, of 100."""

every_unit = pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)


def service(unit: Path) -> dict[str, list[str]]:
    """The settings of [Service]; every line of a unit must be a setting, a section, a comment or empty."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if re.fullmatch(r"\[\w+\]", line):
            section = line
            continue
        assert re.fullmatch(r"[A-Z]\w+=.*", line), line
        if section == "[Service]":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_there_is_a_reader_and_a_template_for_sinks() -> None:
    assert [unit.name for unit in UNITS] == ["statecast-reader.service", "statecast-sink@.service"]


@every_unit
def test_it_starts_a_real_command_with_metrics(unit: Path) -> None:
    settings = service(unit)
    (line,) = settings["ExecStart"]
    environment = dict(one.split("=") for one in settings.get("Environment", []))
    line = re.sub(r"\$\{(\w+)\}", lambda found: environment[found[1]], line.replace("%i", "billing"))
    options = parsed(shlex.split(line))
    assert options.metrics_port in (9464, 9465)
    assert options.metrics_host == "127.0.0.1"
    assert getattr(options, "name", "billing") == "billing"


@every_unit
def test_it_starts_again_unless_a_person_is_needed_and_may_finish_what_it_does(unit: Path) -> None:
    settings = service(unit)
    assert settings["Type"] == ["exec"]
    assert settings["Restart"] == ["on-failure"]
    assert settings["RestartPreventExitStatus"] == [f"{EXIT_USAGE} {EXIT_NEEDS_PERSON}"]
    assert int(settings["TimeoutStopSec"][0]) > STOP_SECONDS


@every_unit
def test_it_may_do_nothing_but_its_work(unit: Path) -> None:
    settings = service(unit)
    for name in ("DynamicUser", "NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces"):
        assert settings[name] == ["yes"], name
    assert settings["ProtectSystem"] == ["strict"]
    assert settings["CapabilityBoundingSet"] == [""]
    assert settings["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    assert settings["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]


@every_unit
def test_the_secrets_that_its_comment_names_are_the_ones_it_loads(unit: Path) -> None:
    named = set(re.findall(r"\$\{file:/run/credentials/[\w@-]+\.service/(\w+)\}", unit.read_text()))
    loaded = {one.split(":")[0] for one in service(unit)["LoadCredential"]}
    assert named == loaded
    text = unit.read_text().replace("@billing", "@")
    assert set(re.findall(r"/run/credentials/([\w@-]+\.service)/", text)) == {unit.name}


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units with the commands of this environment, since systemd looks whether they are there."""
    paths = []
    for unit in UNITS:
        path = tmp_path / unit.name
        path.write_text(unit.read_text().replace("/opt/statecast/bin", str(Path(sys.executable).parent)))
        paths.append(str(path))
    return paths


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@needs_systemd
def test_systemd_finds_nothing_to_object_to(installed: list[str]) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *installed], capture_output=True, text=True, timeout=120, check=False
    )
    assert [line for line in verified.stderr.splitlines() if "statecast" in line] == []
    assert verified.returncode == 0


@needs_systemd
def test_systemd_finds_little_exposure(installed: list[str]) -> None:
    for path in installed:
        command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", path]
        judged = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert judged.returncode == 0, judged.stdout.splitlines()[-1:]
