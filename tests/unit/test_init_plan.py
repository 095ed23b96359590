"""What `cdc init` proposes, and the file that comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc.catalog import Table
from cdc.config import load_reader_config
from cdc.init.access import access_sql
from cdc.init.cautions import Kind
from cdc.init.command import read_dsn
from cdc.init.errors import FileInTheWay, NoDsn, NoSuchTable
from cdc.init.facts import TableFacts
from cdc.init.mending import mending
from cdc.init.output import refuse_to_overwrite, write_new
from cdc.init.plan import Plan, choose, make_plan, skip
from cdc.init.report import report
from cdc.init.sql_text import filled, identifier
from cdc.init.starter_file import starter_file
from cdc.source import Publication
from tests.unit.init_builders import INTEGER, facts, index, server, table
from tests.unit.test_init_names import identifiers
from transforms.column_type import ColumnType
from transforms.names import TableName

ORDERS = TableName("public", "orders")
ENVIRON = {"SOURCE_DSN": "host=nowhere", "REDIS_URL": "redis://nowhere"}


def plan(*pairs: tuple[TableFacts, Table], version: int = 180_000) -> Plan:
    return make_plan("shop", [pair[0] for pair in pairs], {pair[1].name: pair[1] for pair in pairs}, (), version)


def planned(of_table: Table, **of_facts: Any) -> Plan:
    return plan((facts(of_table.name, **of_facts), of_table))


def access(proposal: Plan, *, existing: Publication | None = None, **of_server: Any) -> str:
    return access_sql("cdc_shop_reader", "cdc_shop", proposal.events, server(**of_server), existing)


# Which tables


def test_without_patterns_all_tables_are_chosen() -> None:
    tables = [facts(ORDERS), facts(TableName("sales", "items"))]
    assert choose(tables, []) == tables


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (["orders"], ["orders"]),
        (["public.*"], ["orders", "Odd"]),
        (["sales.items", "O*"], ["Odd", "items"]),
        (["*"], ["orders", "Odd", "items"]),
    ],
)
def test_patterns_match_the_name_or_schema_and_name(globs: list[str], expected: list[str]) -> None:
    tables = [facts(ORDERS), facts(TableName("public", "Odd")), facts(TableName("sales", "items"))]
    assert [chosen.name.name for chosen in choose(tables, globs)] == expected


def test_each_pattern_must_match_something() -> None:
    with pytest.raises(NoSuchTable, match="no table matches 'ordres'"):
        choose([facts(ORDERS)], ["orders", "ordres"])


def test_tables_of_no_kind_to_be_followed_are_left_out_with_the_reason() -> None:
    tables = [
        facts(ORDERS),
        facts(TableName("public", "cache"), persistence="u"),
        facts(TableName("pg_temp_3", "work"), persistence="t"),
        facts(TableName("public", "spatial_ref_sys"), extension="postgis"),
        facts(TableName("cdc", "checkpoint")),
        facts(TableName("auth", "users")),
    ]
    kept, skipped = skip(tables, supabase=True)
    assert [table.name for table in kept] == [ORDERS]
    assert {group.reason.partition(":")[0]: [str(name) for name in group.tables] for group in skipped} == {
        "unlogged": ["public.cache"],
        "temporary": ["pg_temp_3.work"],
        "of the extension postgis": ["public.spatial_ref_sys"],
        "statecast's own books about the replicas in this database": ["cdc.checkpoint"],
        "Supabase's own": ["auth.users"],
    }
    assert len(skip(tables, supabase=False)[0]) == 2


def test_tables_that_are_written_to_most_come_first_then_the_largest() -> None:
    idle, large, busy = (TableName("public", name) for name in ("idle", "large", "busy"))
    proposal = plan(
        (facts(idle), table(idle)), (facts(large, size_bytes=9), table(large)), (facts(busy, writes=1), table(busy))
    )
    assert [event.event.name for event in proposal.events] == ["busy", "large", "idle"]


# What becomes of a table


def test_personal_columns_are_left_out_and_remembered() -> None:
    (event,) = planned(table(TableName("public", "users"), ["email", "phone", "plan"], key=["email"])).events
    assert (event.mapping.names, event.personal) == (("email", "plan"), ("phone",))
    assert [caution.kind for caution in event.cautions] == [Kind.PERSONAL_KEY]


def test_generated_columns_are_left_out() -> None:
    found = table(ORDERS, ["id", "a", "b"], generated=["a", "b"])
    (event,) = planned(found, virtual=("a",), stored=("b",)).events
    assert event.mapping.names == ("id",)
    assert (
        event.cautions[0].text == "left out since they are generated: a (virtual: in no log), b (stored: not published)"
    )
    (older,) = plan((facts(ORDERS, stored=("b",)), found), version=170_000).events
    assert older.cautions[0].text.endswith("b (stored: not in the log before Postgres 18)")


def test_a_column_that_is_named_as_all_columns_are_is_left_out() -> None:
    (event,) = planned(table(ORDERS, ["id", "*"])).events
    assert event.mapping.names == ("id",)


def test_a_table_is_mapped_by_its_identity_where_the_primary_key_is_not_in_it() -> None:
    found = table(
        ORDERS,
        ["id", "code"],
        key=["id", "code"],
        primary_key=("id",),
        unique_keys=(frozenset({"id"}), frozenset({"code"})),
        identity="i",
        identity_columns=frozenset({"code"}),
    )
    (event,) = planned(found).events
    assert event.event.key == ("code",)


@pytest.mark.parametrize(
    ("found", "of_facts", "kind"),
    [
        (table(ORDERS), {"toast_bytes": 5, "toastable": frozenset({"note"})}, Kind.LARGE_VALUES),
        (table(ORDERS, kind="p"), {"kind": "p"}, Kind.PARTITIONED),
        (table(ORDERS, types={"note": ColumnType("public.mood", "public.mood", 16_500)}), {}, Kind.AS_TEXT),
        (table(ORDERS), {"children": (TableName("public", "old"),)}, Kind.INHERITANCE),
        (table(ORDERS), {"parents": (TableName("public", "all"),)}, Kind.INHERITANCE),
        (table(ORDERS), {"row_security": True}, Kind.ROW_SECURITY),
    ],
)
def test_what_is_to_be_known_is_said(found: Table, of_facts: dict[str, Any], kind: Kind) -> None:
    (event,) = planned(found, **of_facts).events
    assert [caution.kind for caution in event.cautions] == [kind]


@pytest.mark.parametrize(
    ("found", "of_facts"),
    [
        (table(ORDERS), {"toast_bytes": 0, "toastable": frozenset({"note"})}),
        (table(ORDERS, identity="f"), {"toast_bytes": 5, "toastable": frozenset({"note"})}),
        (table(ORDERS, ["id", "phone"]), {"toast_bytes": 5, "toastable": frozenset({"phone"})}),
        (table(ORDERS, types={"note": ColumnType("public.code", "integer", 23)}), {}),
    ],
)
def test_nothing_is_said_where_there_is_nothing_to_know(found: Table, of_facts: dict[str, Any]) -> None:
    (event,) = planned(found, **of_facts).events
    assert event.cautions == ()


# What mends a table


KEYLESS: dict[str, Any] = {"identity_columns": frozenset()}


@pytest.mark.parametrize(
    ("of_facts", "found", "expected"),
    [
        (
            {},
            table(ORDERS, identity="n", identity_columns=frozenset()),
            "ALTER TABLE public.orders REPLICA IDENTITY DEFAULT;",
        ),
        (
            {"deferrable_key": index("orders_pkey", "id")},
            table(ORDERS, key=[], **KEYLESS),
            "ALTER TABLE public.orders DROP CONSTRAINT orders_pkey,\n    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);",
        ),
        (
            {"unique_indexes": (index("by id", "id"),)},
            table(ORDERS, key=[], **KEYLESS),
            "ALTER TABLE public.orders ALTER COLUMN id SET NOT NULL;\n"
            'ALTER TABLE public.orders REPLICA IDENTITY USING INDEX "by id";',
        ),
        (
            {},
            table(ORDERS, key=[], **KEYLESS),
            "-- Rewrites public.orders under an exclusive lock.\nALTER TABLE public.orders\n"
            "    ADD COLUMN row_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;",
        ),
        ({"kind": "p", "partition_columns": (None,)}, table(ORDERS, key=[], kind="p", **KEYLESS), None),
        ({}, table(ORDERS, generated=["id"], identity="n", identity_columns=frozenset()), None),
    ],
)
def test_a_table_without_a_usable_key_comes_with_what_mends_it(
    of_facts: dict[str, Any], found: Table, expected: str | None
) -> None:
    assert mending(facts(ORDERS, **of_facts), found) == expected


def test_a_key_that_is_generated_has_no_sql_that_mends_it_but_advice() -> None:
    (unfit,) = planned(table(ORDERS, ["id"], generated=["id"])).unfit
    assert (unfit.sql, unfit.reason) == (None, "has no key among the columns in the log")
    assert unfit.advice.endswith(".")


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
def test_nothing_that_a_terminal_acts_on_is_printed(proposal: Plan) -> None:
    text = report(proposal, "cdc_shop_reader", access(proposal), [], Path("cdc.toml"))
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
    sql = access(planned(table(ORDERS)), traces=frozenset({"rds_superuser"}))
    assert "CREATE ROLE cdc_shop_reader LOGIN;\nGRANT rds_replication TO cdc_shop_reader;" in sql


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
