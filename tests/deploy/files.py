"""The files below deploy/, and what the commands in them mean to the commands themselves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

import cdc.cli
import sinks.cli

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
METRICS_PORT = 9464


def load(path: str) -> Any:
    """A YAML file with one document."""
    return yaml.safe_load((DEPLOY / path).read_text())


def load_all(folder: str) -> list[dict[str, Any]]:
    """Every document of every YAML file in a folder."""
    return [
        document
        for path in sorted((DEPLOY / folder).glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]


def parsed(command: list[str]) -> argparse.Namespace:
    """The options of a command line, by the command's own parser. Fails where it would end with a usage error."""
    parser = {"cdc": cdc.cli._parser, "cdc-sink": sinks.cli._parser}[Path(command[0]).name]()
    try:
        return parser.parse_args(command[1:])
    except SystemExit as error:
        raise AssertionError(f"{command} is no command: {error}") from error


def assert_runs(command: list[str], *, sink: str | None = None, config: str = "/etc/statecast/cdc.toml") -> None:
    """It is the reader's or the sink's `run`, with its configuration where it is mounted and metrics for others."""
    options = parsed(command)
    assert options.command in (cdc.cli._run, sinks.cli._run)
    assert getattr(options, "name", None) == sink
    assert options.once is False
    assert options.config == Path(config)
    assert (options.metrics_host, options.metrics_port) == ("0.0.0.0", METRICS_PORT)
    assert options.log_format == "json"
