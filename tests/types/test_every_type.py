"""Every type that a column of this server can have, as `pg_type` lists them, with its corners and its arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import psycopg
import pytest
from psycopg.rows import TupleRow

from tests import servers
from tests.types.mirror import PATHS, Group, Literal, Mirror, assert_same, mirror
from tests.types.samples import NO_INPUT, OWN_SAMPLES, OWN_TYPES, SAMPLES, arrays_of

PART = 60
"""Composites of the catalog that share a table, each with its array."""
LARGE = {
    "text": "é\\" * 9000,
    "bytea": "\\x" + "00ff" * 9000,
    "json": ' {"a": "\\u0000", "a": [' + "1 ,\n" * 9000 + "null]} ",
    "jsonb": "[" + '"x",' * 9000 + "null]",
    "numeric": "9" * 20000 + ".10",
    "bit varying": "10" * 20000,
    "text[]": "[0:1]={NULL," + "a" * 20000 + "}",
    "integer[]": "{" + "1," * 9000 + "NULL}",
    "jsonb[]": "{" + '"{\\"a\\": null}",' * 3000 + "NULL}",
    "tsvector": " ".join(f"w{number}:{number}" for number in range(1, 3000)),
    "path": "[" + ",".join(f"({number},-0)" for number in range(3000)) + "]",
    "pair": "(" + "a" * 20000 + ',{},"null")',
    "nummultirange": "{" + ",".join(f"[{number},{number}.50]" for number in range(3000)) + "}",
}
"""Values that are stored apart from their rows."""
GROUPS = ("scalars", "arrays", "own", "own_arrays", "catalog_0", "catalog_1", "catalog_2", "catalog_3")


class Kind(NamedTuple):
    """A type of the server, arrays apart."""

    name: str
    typtype: str
    delimiter: str
    fields: int
    """Of a composite."""
    is_column_type: bool
    """Whether a column can have it: the server's own word."""


@pytest.fixture(scope="module")
def kinds(postgres_server: servers.Postgres) -> dict[str, Kind]:
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT format_type(t.oid, NULL), t.typtype::text, t.typdelim::text, count(a.attnum)"
            " FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid"
            " LEFT JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0"
            " WHERE t.oid < 16384 AND NOT EXISTS (SELECT FROM pg_type x WHERE x.typarray = t.oid)"
            " AND c.relkind IS DISTINCT FROM 't' GROUP BY t.oid ORDER BY t.oid"
        ).fetchall()
        return {
            name: Kind(name, typtype, delimiter, fields, may_be_a_column(connection, name))
            for name, typtype, delimiter, fields in rows
        }


def may_be_a_column(connection: psycopg.Connection[TupleRow], type_: str) -> bool:
    try:
        connection.execute(f"CREATE TEMP TABLE tried (c {type_}); DROP TABLE tried".encode())
    except psycopg.errors.InvalidTableDefinition:
        return False
    return True


def skip_reason(kind: Kind) -> str | None:
    """Why no column of this type can be filled, if so."""
    if kind.typtype == "p":
        return "a pseudo-type: no column can have it"
    if not kind.is_column_type:
        return "the row type of a catalog that has, or whose fields have, a field of the pseudo-type anyarray"
    return None


@pytest.fixture(scope="module")
def has_xml(postgres_server: servers.Postgres) -> bool:
    with psycopg.connect(postgres_server.dsn()) as connection:
        try:
            connection.execute("SELECT '<a/>'::xml")
        except psycopg.errors.FeatureNotSupported:
            return False
    return True


@pytest.fixture(scope="module")
def literals(kinds: Mapping[str, Kind], has_xml: bool) -> dict[str, dict[str, tuple[str, ...]]]:
    """Group -> type -> literals. The groups of arrays hold those of their elements."""
    plain = {name: texts for name, texts in SAMPLES.items() if has_xml or name != "xml"}
    found: dict[str, dict[str, tuple[str, ...]]] = {group: {} for group in GROUPS}
    found |= {"scalars": plain | dict.fromkeys(NO_INPUT, ()), "arrays": plain}
    found |= {"own": OWN_SAMPLES, "own_arrays": OWN_SAMPLES}
    rows = [kind for kind in kinds.values() if kind.typtype == "c" and not skip_reason(kind)]
    for place, kind in enumerate(rows):
        empty = f"({',' * (kind.fields - 1)})"
        found[GROUPS[4 + place // PART]] |= {kind.name: (empty,), f"{kind.name}[]": (f'{{"{empty}",NULL}}', "{}")}
    return found


@pytest.fixture(scope="module")
def pipeline(
    postgres_server: servers.Postgres,
    redis_server: servers.Redis,
    tmp_path_factory: pytest.TempPathFactory,
    literals: Mapping[str, Mapping[str, Sequence[str]]],
) -> Iterator[Mirror]:
    groups = []
    for group, types in literals.items():
        suffix = "[]" if group in ("arrays", "own_arrays") else ""
        groups.append(Group(group, {f"c{number}": name + suffix for number, name in enumerate(types)}))
    groups.append(Group("large", {"touched": "integer"} | {f"c{number}": name for number, name in enumerate(LARGE)}))
    with mirror(postgres_server, redis_server, tmp_path_factory.mktemp("types"), groups, OWN_TYPES) as made:
        yield made


@pytest.fixture
def batch(request: pytest.FixtureRequest, pipeline: Mirror, kinds: Mapping[str, Kind]) -> dict[str, list[Literal]]:
    """What is sent through a group: the literals that this server takes, and NULL."""
    group = request.getfixturevalue("group")
    literals: Mapping[str, Sequence[str]] = request.getfixturevalue("literals")[group]
    made: dict[str, list[Literal]] = {}
    for (column, type_), texts in zip(pipeline.groups[group].columns.items(), literals.values(), strict=True):
        if group in ("arrays", "own_arrays"):
            element = type_.removesuffix("[]")
            taken = [text for text in pipeline.oracle.accepts(element, texts) if text is not None]
            delimiter = kinds[element].delimiter if element in kinds else ","
            texts = arrays_of(taken, delimiter)
            assert pipeline.oracle.accepts(type_, texts) == texts, type_
        made[column] = [*pipeline.oracle.accepts(type_, texts), None]
        assert len(made[column]) > 1 or type_ in NO_INPUT, f"no literal of {type_} is taken"
    return made


@pytest.mark.parametrize("group", GROUPS)
def test_values_come_out_of_the_replica_as_they_went_in(
    pipeline: Mirror, group: str, batch: Mapping[str, Sequence[Literal]]
) -> None:
    assert_same(pipeline.carry(group, batch))


def test_large_values_that_an_update_leaves_alone_stay_as_they_are(pipeline: Mirror) -> None:
    for path in PATHS:
        for number in range(len(LARGE)):
            apart = f"ALTER TABLE large_{path} ALTER COLUMN c{number} SET STORAGE EXTERNAL"
            pipeline.source.execute(apart.encode())
    batch = {"touched": ["1", "2"]} | {f"c{number}": [text, None] for number, text in enumerate(LARGE.values())}
    assert_same(pipeline.carry("large", batch))
    for table in ("given", *PATHS):
        pipeline.source.execute(f"UPDATE large_{table} SET touched = -touched".encode())
    pipeline.settle()
    assert_same([one for path in PATHS for one in pipeline.differences("large", path)])


def test_no_type_of_the_server_is_left_out(kinds: Mapping[str, Kind], pipeline: Mirror, has_xml: bool) -> None:
    sent = {re.sub(r"\(.*?\)", "", type_) for group in pipeline.groups.values() for type_ in group.columns.values()}
    without_libxml = set() if has_xml else {"xml"}
    assert kinds.keys() - sent == {name for name, kind in kinds.items() if skip_reason(kind)} | without_libxml


def test_the_replica_has_the_source_s_types_where_it_knows_them(pipeline: Mirror) -> None:
    own = {type_ for name in ("own", "own_arrays") for type_ in pipeline.groups[name].columns.values()}
    statement = (
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a"
        " WHERE a.attrelid = %s::regclass AND a.attnum > 1 ORDER BY a.attnum"
    )
    for group in pipeline.groups.values():
        at_source = dict(pipeline.source.execute(statement, [f"{group.name}_inserted"]).fetchall())
        in_replica = dict(pipeline.target.execute(statement, [f"replica.{group.name}_inserted"]).fetchall())
        for column, type_ in group.columns.items():
            if type_ in own:
                assert in_replica[column].removesuffix("[]") in ("text", "integer", "json", "character varying(5)"), (
                    type_
                )
            elif not type_.startswith("information_schema."):  # domains there: their columns have the base type
                assert in_replica[column] == at_source[column]
