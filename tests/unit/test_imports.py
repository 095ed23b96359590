"""Each command, started by itself, can import what it needs: the other tests' commands have imported it before."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

COMMANDS = ("cdc.cli", "sinks.cli")
PROGRAM = """
import importlib, os, sys
import orjson, psycopg, pydantic, redis, rich.console, tenacity  # which are not ours, and take the time
for module in sys.argv[1].split():
    if os.fork() == 0:
        for name in (sys.argv[2], module):
            importlib.import_module(name)
        os._exit(0)
    _, status = os.wait()
    assert status == 0, f"{module} cannot be imported behind {sys.argv[2]}"
"""


def imported_late(command: str) -> set[str]:
    """The modules that a command imports only where it runs a subcommand."""
    spec = find_spec(command)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = [node for function in functions for node in ast.walk(function)]
    return {node.module for node in inside if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_subcommand_can_import_what_it_needs(command: str) -> None:
    modules = imported_late(command)
    assert len(modules) > 4
    program = [sys.executable, "-W", "error", "-c", PROGRAM, " ".join(sorted(modules)), command]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
