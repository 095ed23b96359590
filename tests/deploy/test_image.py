"""The Dockerfile, by its parsed instructions: small, without root, watched, and nothing in it that is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from cdc.endpoint import serving
from tests.deploy.files import DEPLOY, METRICS_PORT, ROOT, assert_runs
from transforms.health import monitoring_application


@pytest.fixture
def instructions() -> list[tuple[str, str]]:
    return [(one["instruction"], one["value"]) for one in DockerfileParser(path=str(DEPLOY)).structure]


@pytest.fixture
def final_stage(instructions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    last = max(at for at, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[last:]


def values(stage: list[tuple[str, str]], name: str) -> list[str]:
    return [value for instruction, value in stage if instruction == name]


def test_both_stages_begin_with_the_same_slim_python_that_we_support(instructions: list[tuple[str, str]]) -> None:
    build, final = values(instructions, "FROM")
    assert build == f"{final} AS build"
    name, tag = final.split(":")
    assert name == "python"
    assert tag.startswith(("3.11-slim-", "3.12-slim-", "3.13-slim-"))


def test_the_image_holds_the_built_environment_and_no_sources(final_stage: list[tuple[str, str]]) -> None:
    assert values(final_stage, "COPY") == ["--from=build /opt/statecast /opt/statecast"]
    assert values(final_stage, "ADD") == []
    assert all("pip" not in run for run in values(final_stage, "RUN"))


def test_it_does_not_run_as_root(final_stage: list[tuple[str, str]]) -> None:
    (user,) = values(final_stage, "USER")
    assert [int(part) > 0 for part in user.split(":")] == [True, True]
    assert any(f"--uid {user.split(':')[0]}" in run for run in values(final_stage, "RUN"))


def test_what_is_copied_is_there_and_let_through_to_the_build(instructions: list[tuple[str, str]]) -> None:
    passed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {source for copy in values(instructions, "COPY") if "--from" not in copy for source in copy.split()[:-1]}
    assert copied == passed
    assert all((ROOT / source).exists() for source in copied)


def test_without_arguments_it_is_the_reader(final_stage: list[tuple[str, str]]) -> None:
    (command,) = values(final_stage, "CMD")
    assert_runs(json.loads(command))
    assert values(final_stage, "ENTRYPOINT") == []
    assert values(final_stage, "EXPOSE") == [str(METRICS_PORT)]


@pytest.mark.parametrize(("reason", "well"), [(None, True), ("the stream has been silent for 9 s too long", False)])
def test_the_health_check_tells_a_process_that_works_from_one_that_hangs(
    final_stage: list[tuple[str, str]], reason: str | None, well: bool
) -> None:
    (check,) = values(final_stage, "HEALTHCHECK")
    python, flag, code = json.loads(check.split("CMD ")[1])
    assert (python, flag) == ("python", "-c")
    application = monitoring_application(lambda environ, start: [], lambda: reason, lambda: "not ready")
    with serving(application, "127.0.0.1", 0) as port:
        command = [sys.executable, "-c", code.replace(f":{METRICS_PORT}/", f":{port}/")]
        assert (subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0) is well


def test_shell_scripts_parse() -> None:
    scripts = [path for path in DEPLOY.rglob("*.sh") if path.is_file()]
    assert len(scripts) >= 2
    for script in scripts:
        shell = Path(script.read_text().splitlines()[0].removeprefix("#!")).name
        subprocess.run([shell, "-n", str(script)], check=True, timeout=120)
