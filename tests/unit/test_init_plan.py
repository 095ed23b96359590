"""What `cdc init` proposes, and the file that comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from cdc.catalog import Table
from cdc.init.cautions import Kind
from cdc.init.errors import NoSuchTable
from cdc.init.mending import mending
from cdc.init.plan import choose, skip
from tests.unit.init_builders import ORDERS, facts, index, plan, planned, table
from transforms.column_type import ColumnType
from transforms.names import TableName

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
    assert [caution.kind for caution in event.cautions] == [Kind.NAMELESS]


@pytest.mark.parametrize(
    ("found", "of_facts", "why"),
    [
        (table(ORDERS, key=[]), {}, "(it has no primary key)"),
        (
            table(ORDERS, key=[]),
            {"deferrable_key": index("pk", "id")},
            "(its primary key is deferrable, and so is no identity)",
        ),
        (table(ORDERS, identity="n", identity_columns=frozenset()), {}, "(REPLICA IDENTITY NOTHING)"),
    ],
)
def test_a_table_that_is_unfit_is_told_why(found: Table, of_facts: dict[str, Any], why: str) -> None:
    (unfit,) = planned(found, **of_facts).unfit
    assert unfit.reason.startswith("has no replica identity: once published, the application's UPDATE")
    assert unfit.reason.endswith(why)


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
        (table(ORDERS, children=(TableName("public", "old"),)), {}, Kind.INHERITANCE),
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
            "    ADD COLUMN id_2 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;",
        ),
        (
            {"unique_indexes": (index("by id", "id"),)},
            table(ORDERS, key=[], identity="f", identity_columns=frozenset({"id", "note"})),
            "ALTER TABLE public.orders ALTER COLUMN id SET NOT NULL;",
        ),
        (
            {"kind": "p", "unique_indexes": (index("by id", "id"),)},
            table(ORDERS, key=[], kind="p", **KEYLESS),
            "ALTER TABLE public.orders ADD PRIMARY KEY (id);",
        ),
        ({}, table(ORDERS, ["*"], key=["*"], identity="n", **KEYLESS), None),
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
    assert (unfit.sql, unfit.reason) == (None, "has no key among the columns that can be listed")
    assert unfit.advice.endswith(".")
