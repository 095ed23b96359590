"""Which file may import what. import-linter holds the rules between packages, these tests those for single files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for name in ("cdc", "transforms", "sinks") for path in (ROOT / name).rglob("*.py")
)

_REDIS = [
    "cdc/redis_link.py",
    "cdc/transport.py",
    "cdc/append_link.py",
    "cdc/publisher.py",
    "cdc/proof.py",
    "cdc/control.py",
    "cdc/check/redis_rights.py",
    "cdc/retention/streams.py",
    "cdc/demo/*",
    "sinks/redis_link.py",
    "sinks/transport.py",
    "sinks/stream.py",
    "sinks/control.py",
    "sinks/redis_rights.py",
]

# Client library: the only files that may import it.
ALLOWED_IMPORTS = {
    "psycopg": [
        "cdc/replication.py",
        "cdc/source/*",
        "cdc/init/survey.py",
        "cdc/demo/*",
        "sinks/postgres.py",
        "sinks/dead_events.py",
    ],
    "redis": _REDIS,
    "hiredis": _REDIS,
    # What it parses comes from whoever can write to Redis: it is looked at in these files, and executed nowhere.
    "sqlglot": ["transforms/condition/grammar.py", "transforms/condition/reading.py"],
    "tenacity": ["cdc/pipeline.py", "sinks/worker.py"],
    # Never where rows pass: counters are plain numbers that these files read off at a scrape.
    "prometheus_client": [
        "transforms/metric_families.py",
        "cdc/metrics.py",
        "cdc/retention/metrics.py",
        "cdc/monitoring.py",
        "cdc/endpoint.py",
        "sinks/metrics.py",
        "sinks/monitoring.py",
        "sinks/endpoint.py",
    ],
}

# The only files that read the environment, print, or configure logging; the accelerator's switch acts on imports.
COMMANDS = ["cdc/cli.py", "cdc/demo/*", "sinks/cli.py", "transforms/command_line.py", "transforms/accelerator.py"]
COMMANDS_ONLY = {"os.environ", "os.environb", "os.getenv", "print", "logging.basicConfig"}

# Pure files take the time, and chance, as an argument.
PURE = [
    "transforms/*",
    "cdc/messages.py",
    "cdc/pgoutput.py",
    "cdc/walsender.py",
    "cdc/progress.py",
    "cdc/rereads.py",
    "cdc/route.py",
    "cdc/trail.py",
    "cdc/transaction.py",
    "cdc/entries.py",
    "cdc/encoding.py",
    "cdc/shaping.py",
    "cdc/snapshot/sizing.py",
    "cdc/snapshot/subject.py",
    "cdc/snapshot/visibility.py",
    "cdc/retention/entry_trail.py",
    "cdc/retention/figures.py",
    "cdc/retention/judging.py",
    "cdc/retention/wording.py",
    "cdc/init/access.py",
    "cdc/init/amounts.py",
    "cdc/init/cautions.py",
    "cdc/init/event_names.py",
    "cdc/init/facts.py",
    "cdc/init/mending.py",
    "cdc/init/personal.py",
    "cdc/init/plan.py",
    "cdc/init/printable.py",
    "cdc/init/report.py",
    "cdc/init/sql_text.py",
    "cdc/init/starter_file.py",
    "cdc/init/words.py",
    "cdc/server/providers.py",
    "cdc/server/readiness.py",
    "sinks/batch.py",
    "sinks/copy_text.py",
    "sinks/compaction.py",
    "sinks/errors.py",
    "sinks/unknown_events.py",
]
IMPURE = {
    "time",
    "random",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}


def violations(path: str, source: str) -> list[str]:
    """What this file uses though its path does not allow it, as `line: name`."""
    found = []
    for line, name in used_names(ast.parse(source)):
        package = name.partition(".")[0]
        if (
            (package in ALLOWED_IMPORTS and not matches(path, ALLOWED_IMPORTS[package]))
            or (name in COMMANDS_ONLY and not matches(path, COMMANDS))
            or ((name in IMPURE or package in IMPURE) and matches(path, PURE))
        ):
            found.append(f"{line}: {name}")
    return found


def used_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every imported or called-upon name, in full: `from os import environ as e; e` gives `os.environ`."""
    full_names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                full_names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                full_names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node)) is not None:
            first, _, rest = name.partition(".")
            if first in full_names:
                yield node.lineno, f"{full_names[first]}.{rest}"
        elif isinstance(node, ast.Name) and node.id == "print":
            yield node.lineno, "print"


def dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)) is not None:
        return f"{before}.{node.attr}"
    return None


def matches(path: str, patterns: list[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)


@pytest.mark.parametrize("path", SOURCES)
def test_a_file_uses_only_what_its_place_allows(path: str) -> None:
    assert violations(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cdc/pipeline.py", "import psycopg"),
        ("cdc/pipeline.py", "def f() -> None:\n    from psycopg.pq import PGconn"),
        ("sinks/worker.py", "from redis import Redis"),
        ("cdc/cli.py", "import tenacity"),
        ("cdc/publisher.py", "from prometheus_client import Counter"),
        ("cdc/config.py", "import os\nos.environ['X']"),
        ("cdc/config.py", "from os import getenv as get"),
        ("sinks/worker.py", "print('x')"),
        ("cdc/pipeline.py", "import logging as log\nlog.basicConfig()"),
        ("cdc/progress.py", "from time import monotonic"),
        ("transforms/event.py", "import random"),
        ("sinks/batch.py", "import datetime as d\nd.datetime.now(d.UTC)"),
        ("sinks/batch.py", "from datetime import datetime\nnow = datetime.now"),
    ],
)
def test_a_breach_is_noticed(path: str, source: str) -> None:
    assert violations(path, source) != []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("cdc/replication.py", "from psycopg import pq"),
        ("cdc/demo/servers.py", "import redis.client"),
        ("sinks/cli.py", "import os\nprint(os.environ)"),
        ("cdc/progress.py", "from datetime import datetime\nfloor = datetime.min"),
        ("cdc/pipeline.py", "import time\ntime.monotonic()"),
    ],
)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert violations(path, source) == []
