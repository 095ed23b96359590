"""Each line on which the promise rests is held by a test that fails without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.mutations import MUTATIONS, ROOT, Mutation

_SECONDS = 240
_FAILED = 1
"""Pytest's exit code when tests ran and some failed."""
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.rule)
def test_each_line_is_there_once_and_listed(mutation: Mutation) -> None:
    assert mutation.text(ROOT) != (ROOT / mutation.file).read_text()
    listed = (ROOT / "tests/faults/README.md").read_text()
    assert f"| {mutation.rule} | `{mutation.file}` | `{mutation.test}` |" in listed


@pytest.mark.soak
@pytest.mark.timeout(_SECONDS + 60)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda each: each.rule)
def test_a_test_fails_where_the_line_is_broken(mutation: Mutation, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, ignore=_NOT_COPIED)
    (copy / mutation.file).write_text(mutation.text(ROOT))
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-n",
            "0",
            "-m",
            "not soak",
            "-p",
            "no:cacheprovider",
            mutation.test,
        ],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert ran.returncode == _FAILED, f"no test noticed: {ran.stdout[-2000:]}"
    assert "collected 0 items" not in ran.stdout
