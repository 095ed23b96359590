"""A condition is judged as Postgres judges what we write of it, and what the user wrote, on every kind of value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from cdc.catalog import Table
from cdc.source.connection import Source
from cdc.source.tables import describe_tables
from tests.types.profile import examples
from transforms import copy_text
from transforms.address import Address
from transforms.condition.judging import compile_judge
from transforms.condition.reading import read_condition
from transforms.condition.rendering import render
from transforms.names import TableName, quote_identifier
from transforms.secret import Secret

NUMBERS = ("0", "1", "-1", "7", "32767", "-32768")
DECIMALS = (*NUMBERS, "0.1", "0.10", "-0.3", "1.005", "99999999.99", "0.30000000000000004", "1e5", "-2.5E-3")
WIDE = (*DECIMALS, "9007199254740993", "123456789012345678901234567890.123456789", "1e-30", "16777217", "3.4e38")
SPECIAL = ("'NaN'", "'Infinity'", "'-Infinity'")
WORDS = (
    "''",
    "' '",
    "'a'",
    "'A'",
    "'ab'",
    "'ab '",
    "'a_b'",
    "'a%'",
    "'a\\b'",
    "'it''s'",
    "'ä'",
    "'a\u0308'",
    "'x\ny'",
    "'漢'",
)
PATTERNS = (
    "'%'",
    "'_'",
    "'__'",
    "'a%'",
    "'%b'",
    "'%a%b%'",
    "'a\\_b'",
    "'a\\%'",
    "'%\\\\%'",
    "'_b'",
    "'%ä'",
    "'a_%'",
    "''",
    "'% '",
)
DAYS = ("'2024-02-29'", "'1999-12-31'", "'2000-01-01'", "'0001-01-01'", "'9999-12-31'", "'infinity'", "'-infinity'")
TIMES = (
    "'2024-02-29 23:59:59.999999'", "'2024-03-01'", "'2024-03-01T00:00'", "'2000-01-01 00:00:00.1'",
    "'1969-12-31 23:59:59'", "'infinity'", "'-infinity'",
)  # fmt: skip
ZONED = (
    "'2024-02-29T23:59:59.999999Z'", "'2024-03-01T02:00:00+02'", "'2024-03-01 00:00:00+00:00'",
    "'2000-01-01T05:30:00.1+0530'", "'1969-12-31T23:59:59-11:30'", "'infinity'", "'-infinity'",
)  # fmt: skip
UUIDS = (
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
    f"'{'0' * 8}{'-0000' * 4}{'0' * 8}'",
)
LABELS = ("'new'", "'paid'", "'it''s'", "'a%'")

ORDERED, EQUAL = ("=", "<>", "!=", "<", "<=", ">", ">="), ("=", "<>", "!=")


@dataclass(frozen=True)
class Of:
    """Columns of some types: literals for them, more values that no literal can be, how they are compared."""

    types: tuple[str, ...]
    literals: tuple[str, ...]
    operators: tuple[str, ...] = ORDERED
    more: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


KINDS = (
    Of(("smallint",), NUMBERS),
    Of(("integer", "bigint"), NUMBERS, more=("2147483647", "16777217")),
    Of(("numeric", "tiny"), WIDE + SPECIAL, more=("1e400",)),
    Of(("numeric(12,2)",), DECIMALS),
    Of(("real",), WIDE + SPECIAL, more=("1e-44", "0.1", "16777216")),
    Of(("double precision",), WIDE + SPECIAL, more=("5e-324", "'-0'")),
    Of(("text", "varchar(20)", "worded"), WORDS, EQUAL, patterns=PATTERNS),
    Of(("char(4)",), WORDS, EQUAL, patterns=PATTERNS),
    Of(("mood", "moody"), LABELS, EQUAL, patterns=PATTERNS),
    Of(("boolean",), ("TRUE", "FALSE"), EQUAL),
    Of(("date",), DAYS, more=("'0044-03-15 BC'", "'20240-01-01'")),
    Of(("timestamp", "timestamp(3)"), TIMES, more=("'0044-03-15 12:00 BC'", "'20240-01-01 01:02'")),
    Of(("timestamptz",), ZONED, more=("'0044-03-15 12:00+00 BC'", "'20240-01-01 01:02+00'")),
    Of(("uuid",), UUIDS, EQUAL),
)
TYPES = """
    CREATE TYPE mood AS ENUM ('new', 'paid', 'it''s', 'a%');
    CREATE DOMAIN tiny AS numeric CHECK (true);
    CREATE DOMAIN worded AS text;
    CREATE DOMAIN moody AS mood;
"""
COLUMNS = {f'{type_} "of" {at}': (type_, of) for at, of in enumerate(KINDS) for type_ in of.types}
"""The name of a column is one that must be quoted."""
ROWS = 60


@pytest.fixture
def table(source_dsn: str) -> Iterator[tuple[Source, Table]]:
    """A row for each few values of each column, NULLs among them."""
    with psycopg.connect(source_dsn) as connection:
        connection.execute(TYPES.encode())
        shape = ", ".join(f"{quote_identifier(name)} {type_}" for name, (type_, _) in COLUMNS.items())
        connection.execute(f"CREATE TABLE samples (id int PRIMARY KEY, {shape})".encode())
        for row in range(ROWS):
            values = [sample(type_, of, row + at) for at, (type_, of) in enumerate(COLUMNS.values())]
            connection.execute(f"INSERT INTO samples VALUES ({row}, {', '.join(values)})".encode())
    with closing(Source(Address("source", Secret(source_dsn)), "test")) as source:
        yield source, describe_tables(source, [TableName("public", "samples")])[TableName("public", "samples")]


def sample(type_: str, of: Of, number: int) -> str:
    """A value of a type, in SQL."""
    values = ("NULL", *of.literals, *of.more)
    value = values[number % len(values)]
    if type_ == "char(4)" and len(value) > 6:
        value = "'ab  '"
    return f"CAST({value} AS {type_})" if value != "NULL" else value


def rows_of(source: Source, table: Table) -> list[list[bytes | None]]:
    with (
        source.connection.cursor() as cursor,
        cursor.copy(b"COPY (SELECT * FROM public.samples ORDER BY id) TO STDOUT") as copy,
    ):
        return [copy_text.values(bytes(line)) for line in copy]


def verdicts(source: Source, conditions: Sequence[str]) -> list[tuple[bool | None, ...]]:
    """Of Postgres, on each row."""
    statement = sql.SQL("SELECT {} FROM public.samples ORDER BY id").format(
        sql.SQL(", ").join(map(sql.SQL, conditions))
    )
    return list(source.connection.execute(statement).fetchall())


def in_postgres_words(condition: str) -> str:
    """What the user wrote, where enums are text and reals are doubles.

    Postgres has no LIKE for enums, nor = for a domain over one. A list with 0.1 has the real that is nearest to it, and
    does not when 0.1 is its only number: there, and behind `=`, Postgres compares doubles.
    """
    stands_for = {"mood": "text", "moody": "text", "real": "float8"}
    for name, (type_, _) in COLUMNS.items():
        if type_ in stands_for:
            condition = condition.replace(quote_identifier(name), f"({quote_identifier(name)}::{stands_for[type_]})")
    return condition


@st.composite
def predicates(draw: st.DrawFn) -> str:
    name, (_, of) = draw(st.sampled_from(sorted(COLUMNS.items())))
    column, literal = quote_identifier(name), st.sampled_from(of.literals)
    forms = ["compared", "turned", "in", "null"]
    forms += ["between"] * (of.operators is ORDERED) + ["like"] * bool(of.patterns) + ["bare"] * ("TRUE" in of.literals)
    form, negated = draw(st.sampled_from(forms)), draw(st.sampled_from(["", "NOT "]))
    if form == "compared":
        return f"{column} {draw(st.sampled_from(of.operators))} {draw(literal)}"
    if form == "turned":
        return f"{draw(literal)} {draw(st.sampled_from(of.operators))} {column}"
    if form == "in":
        return f"{column} {negated}IN ({', '.join(draw(st.lists(literal, min_size=1, max_size=4)))})"
    if form == "between":
        return f"{column} {negated}BETWEEN {draw(literal)} AND {draw(literal)}"
    if form == "like":
        return f"{column} {negated}LIKE {draw(st.sampled_from(of.patterns))}"
    return f"{column} IS {negated}NULL" if form == "null" else column


def joined(terms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    chain = st.tuples(st.lists(terms, min_size=2, max_size=3), st.sampled_from([" AND ", " OR "]), st.booleans())
    return st.one_of(
        chain.map(lambda drawn: drawn[1].join(drawn[0]) if drawn[2] else f"({drawn[1].join(drawn[0])})"),
        terms.map(lambda term: f"NOT {term}"),
    )


@given(conditions=st.lists(st.recursive(predicates(), joined, max_leaves=6), min_size=20, max_size=20))
@examples(60)
def test_a_condition_is_judged_as_postgres_judges_it(table: tuple[Source, Table], conditions: list[str]) -> None:
    source, described = table
    types = {column.name: column.type for column in described.columns}
    read = [read_condition(condition, types) for condition in conditions]
    judges = [compile_judge(condition, list(types)) for condition in read]
    ours = [tuple(judge(row) for judge in judges) for row in rows_of(source, described)]
    by_postgres = {"the user wrote": [*map(in_postgres_words, conditions)], "we write": [*map(render, read)]}
    for wrote, expected in by_postgres.items():
        for row, (found, judged) in enumerate(zip(verdicts(source, expected), ours, strict=True)):
            different = [at for at, (one, other) in enumerate(zip(found, judged, strict=True)) if one is not other]
            assert not different, (
                f"as {wrote} it: row {row}, {[(conditions[at], found[at], judged[at]) for at in different]}"
            )


def test_every_value_is_compared_with_every_literal_as_postgres_does(table: tuple[Source, Table]) -> None:
    source, described = table
    types = {column.name: column.type for column in described.columns}
    rows = rows_of(source, described)
    for name, (_, of) in COLUMNS.items():
        column = quote_identifier(name)
        written = [f"{column} {sign} {literal}" for sign, literal in product(of.operators, of.literals)]
        written += [f"{column} LIKE {pattern}" for pattern in of.patterns]
        read = [read_condition(condition, types) for condition in written]
        judges = [compile_judge(condition, list(types)) for condition in read]
        ours = [tuple(judge(row) for judge in judges) for row in rows]
        assert verdicts(source, [*map(render, read)]) == ours, name
        assert verdicts(source, [*map(in_postgres_words, written)]) == ours, name


def test_a_text_that_is_no_label_of_an_enum_is_equal_to_none(table: tuple[Source, Table]) -> None:
    source, described = table
    types = {column.name: column.type for column in described.columns}
    [name] = [name for name, (type_, _) in COLUMNS.items() if type_ == "mood"]
    condition = read_condition(f"{quote_identifier(name)} <> 'gone'", types)
    judge = compile_judge(condition, list(types))
    ours = [(judge(row),) for row in rows_of(source, described)]
    assert verdicts(source, [render(condition)]) == ours
    assert set(ours) == {(True,), (None,)}
