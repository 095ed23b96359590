"""Settings that roles and databases bring to every session: none of them reaches entries or replicas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.types.mirror import Group, Literal, Mirror, assert_same, mirror
from tests.types.samples import SAMPLES, arrays_of

SETTINGS = {
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'sql_standard'",
    "extra_float_digits": "-15",
    "timezone": "'Asia/Kathmandu'",
    "bytea_output": "'escape'",
    "search_path": "'nowhere'",
    "client_encoding": "'LATIN1'",
    "default_transaction_isolation": "'serializable'",
    "default_text_search_config": "'simple'",
    "xmlbinary": "'hex'",
}
TYPES = (
    "date",
    "timestamp without time zone",
    "timestamp with time zone",
    "time with time zone",
    "interval",
    "real",
    "money",
    "double precision",
    "bytea",
    "text",
    "regclass",
    "regtype",
    "regoperator",
    "regproc",
    "point",
    "tstzrange",
    "json",
)
"""Those whose text form some setting changes, and a few more."""


def alter(settings: dict[str, str]) -> str:
    """Half of the settings come with the database, half with the role."""
    changes = "".join(
        f"EXECUTE format('{subject} SET {name} = {value.replace(chr(39), chr(39) * 2)}', current_database());"
        for place, (name, value) in enumerate(settings.items())
        for subject in (("ALTER DATABASE %I", "ALTER ROLE postgres IN DATABASE %I")[place % 2],)
    )
    return f"DO $do$ BEGIN {changes} END $do$;"


def lc_monetary() -> str:
    """SQL that sets another currency where the server's system knows one."""
    tries = "".join(
        f"BEGIN EXECUTE format('ALTER DATABASE %I SET lc_monetary = ''{name}''', current_database());"
        " EXCEPTION WHEN others THEN NULL; END;"
        for name in ("C.UTF-8", "de_DE.UTF-8", "en_US.UTF-8")
    )
    return f"DO $do$ BEGIN {tries} END $do$;"


def send(pipeline: Mirror) -> list[tuple[str | None, ...]]:
    """Send values of the types and their arrays; returns the entries that this gave, but for times and transactions."""
    batch: dict[str, list[Literal]] = {}
    for column, type_ in pipeline.groups["all"].columns.items():
        element = type_.removesuffix("[]")
        taken = [text for text in pipeline.oracle.accepts(element, SAMPLES[element]) if text is not None]
        batch[column] = [*(arrays_of(taken, ",") if type_.endswith("[]") else taken), None]
    assert_same(pipeline.carry("all", batch))
    fields = ("type", "op", "key", "state", "quoted", "origin")
    return [tuple(map(entry.get, fields)) for entry in pipeline.entries() if entry["type"] != "fence.v1"]


@pytest.mark.parametrize(
    ("at_source", "at_target"),
    [
        (alter(SETTINGS) + lc_monetary(), ""),
        ("", alter(SETTINGS) + lc_monetary()),
        (alter({"quote_all_identifiers": "on"}), ""),
        ("", alter({"array_nulls": "off"})),
    ],
    ids=["source", "target", "quote_all_identifiers", "array_nulls"],
)
def test_settings_of_role_and_database_change_nothing(
    postgres_server: servers.Postgres,
    redis_server: servers.Redis,
    tmp_path: Path,
    plain: Any,
    at_source: str,
    at_target: str,
) -> None:
    with mirror(postgres_server, redis_server, tmp_path, GROUPS, at_source, target_setup=at_target) as pipeline:
        assert send(pipeline) == plain


GROUPS: Sequence[Group] = [
    Group("all", {f"c{n}": name for n, name in enumerate((*TYPES, *(f"{type_}[]" for type_ in TYPES)))})
]


@pytest.fixture(scope="module")
def plain(
    postgres_server: servers.Postgres, redis_server: servers.Redis, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str | None, ...]]:
    """The entries of a source without any settings."""
    with mirror(postgres_server, redis_server, tmp_path_factory.mktemp("plain"), GROUPS) as pipeline:
        return send(pipeline)
