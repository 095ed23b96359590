"""The file and the SQL that `cdc init` makes of a proposal, and where the file goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.config import load_reader_config
from cdc.init.access import access_sql
from cdc.init.command import read_dsn
from cdc.init.errors import FileInTheWay, NoDsn
from cdc.init.output import refuse_to_overwrite, write_new
from cdc.init.plan import Plan
from cdc.init.report import report
from cdc.init.sql_text import filled, identifier
from cdc.init.starter_file import starter_file
from cdc.server.providers import AMAZON, AZURE
from cdc.source.publication import Publication
from tests.unit.init_builders import INTEGER, ORDERS, facts, plan, planned, server, table
from tests.unit.test_init_names import identifiers
from transforms.column_type import ColumnType
from transforms.names import TableName

ENVIRON = {"SOURCE_DSN": "host=nowhere", "REDIS_URL": "rediss://nowhere"}


def access(proposal: Plan, *, existing: Publication | None = None, role_exists: bool = False, **of_server: Any) -> str:
    role, publication = "cdc_shop_reader", "cdc_shop"
    return access_sql(role, publication, proposal.events, server(**of_server), existing, role_exists=role_exists)


# The file


def load(proposal: Plan, folder: Path) -> None:
    """The file of a proposal is what the reader would be told, to the letter."""
    text = starter_file(proposal, server(), access(proposal))
    path = folder / "cdc.toml"
    path.write_text(text, encoding="utf-8", newline="\n")
    config = load_reader_config(path, ENVIRON)
    assert config.events == tuple(event.event for event in proposal.events)
    assert config.pipeline.name == proposal.pipeline


@st.composite
def any_tables(draw: st.DrawFn) -> Plan:
    """Tables of any names; some have no key."""
    pairs = []
    for name in draw(st.lists(st.builds(TableName, identifiers, identifiers), unique=True, min_size=1, max_size=5)):
        columns = draw(st.lists(identifiers, unique=True, min_size=1, max_size=6))
        key = draw(st.lists(st.sampled_from(columns), unique=True, max_size=2))
        types = {columns[0]: ColumnType(draw(identifiers), "integer", draw(st.sampled_from([23, 16_500])))}
        pairs.append(
            (facts(name, stored=tuple(draw(st.lists(identifiers, max_size=1)))), table(name, columns, key, types=types))
        )
    pairs.append((facts(ORDERS), table(ORDERS)))
    return plan(*{pair[0].name: pair for pair in pairs}.values())


@settings(deadline=None)
@given(any_tables())
def test_any_identifiers_make_a_file_that_loads(tmp_path_factory: pytest.TempPathFactory, proposal: Plan) -> None:
    load(proposal, tmp_path_factory.getbasetemp())


@settings(deadline=None)
@given(any_tables())
def test_nothing_that_a_terminal_acts_on_is_printed_or_written(proposal: Plan) -> None:
    text = report(proposal, "cdc_shop_reader", server(), "db", [], access(proposal), Path("cdc.toml"))
    text += starter_file(proposal, server(), access(proposal))
    assert all(letter == "\n" or letter.isprintable() for letter in text)


# The SQL


def test_the_role_may_read_the_listed_columns_and_nothing_else() -> None:
    found = table(TableName("sales", "Order Lines"), ["id", "total", "phone"])
    sql = access(planned(found))
    assert 'GRANT SELECT (id, total) ON sales."Order Lines" TO cdc_shop_reader;' in sql
    assert "GRANT USAGE ON SCHEMA sales TO cdc_shop_reader;" in sql
    assert "CREATE ROLE cdc_shop_reader LOGIN REPLICATION;" in sql
    assert "PASSWORD" not in sql


def test_schemas_of_key_types_must_be_usable() -> None:
    kind = ColumnType('"Odd"."kind"', '"Odd"."kind"', 16_500)
    found = table(ORDERS, ["id", "kind"], key=["kind"], types={"id": INTEGER, "kind": kind})
    assert 'GRANT USAGE ON SCHEMA "Odd", public TO cdc_shop_reader;' in access(planned(found))


def test_row_security_asks_for_a_role_that_passes_it() -> None:
    assert "LOGIN REPLICATION BYPASSRLS;" in access(planned(table(ORDERS), row_security=True))


def test_where_the_attribute_cannot_be_given_a_role_is_granted() -> None:
    sql = access(planned(table(ORDERS)), provider=AMAZON)
    assert "CREATE ROLE cdc_shop_reader LOGIN;\nGRANT rds_replication TO cdc_shop_reader;" in sql


def test_where_not_everyone_may_give_the_attribute_it_is_said_who_may() -> None:
    sql = access(planned(table(ORDERS)), provider=AZURE)
    assert "-- run by one who has REPLICATION: ALTER ROLE administrator REPLICATION;\nCREATE ROLE" in sql


def test_a_role_that_is_there_is_altered() -> None:
    assert "ALTER ROLE cdc_shop_reader LOGIN REPLICATION;" in access(planned(table(ORDERS)), role_exists=True)


def test_a_publication_that_is_there_gets_what_it_lacks() -> None:
    proposal = planned(table(ORDERS))
    sql = access(proposal, existing=Publication(1, {}, complete=False))
    assert "ALTER PUBLICATION cdc_shop ADD TABLE ONLY public.orders;" in sql
    assert "ALTER PUBLICATION cdc_shop\n    SET (publish" in sql
    assert "PUBLICATION" not in access(proposal, existing=Publication(1, {ORDERS: True}, complete=True))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders", "orders"),
        ("Order", '"Order"'),
        ('say "x"', '"say ""x"""'),
        ("two\nlines", 'U&"two\\000Alines"'),
        ('back\\slash\t"', 'U&"back\\\\slash\\0009"""'),
        ("\U000e0001", 'U&"\\+0E0001"'),
    ],
)
def test_identifiers_read_as_they_are(name: str, expected: str) -> None:
    assert identifier(name) == expected


def test_long_lists_are_filled_into_lines() -> None:
    text = filled("GRANT SELECT (", [f"column_{number}" for number in range(12)], ")", width=60)
    assert text.splitlines()[0] == "GRANT SELECT (column_0, column_1, column_2, column_3,"
    assert all(len(line) <= 60 for line in text.splitlines())
    assert text.endswith("column_11)")


# Where the file goes, and what it is made from


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cdc.toml"
    path.write_text("mine")
    with pytest.raises(FileInTheWay, match="is there already"):
        refuse_to_overwrite(path)
    with pytest.raises(FileInTheWay, match="is there already"):
        write_new(path, "theirs")
    assert path.read_text() == "mine"
    assert [found.name for found in tmp_path.iterdir()] == ["cdc.toml"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileInTheWay, match="there is no folder"):
        refuse_to_overwrite(tmp_path / "etc" / "cdc.toml")


def test_the_file_is_made_whole(tmp_path: Path) -> None:
    write_new(tmp_path / "cdc.toml", "all of it\n")
    assert (tmp_path / "cdc.toml").read_text() == "all of it\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dsn_is_taken_as_it_is_or_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("host=file\n")
    assert read_dsn("host=db password=pa$$word", {}).reveal() == "host=db password=pa$$word"
    assert read_dsn("${SOURCE_DSN}", {"SOURCE_DSN": "host=db"}).reveal() == "host=db"
    assert read_dsn(f"${{file:{tmp_path / 'dsn'}}}", {}).reveal() == "host=file"


@pytest.mark.parametrize("text", ["", "${SOURCE_DSN}", "${file:/nowhere/dsn}"])
def test_a_dsn_that_is_not_there_is_told(text: str) -> None:
    with pytest.raises(NoDsn, match="--source: "):
        read_dsn(text, {})
