"""Conditions: what is accepted and how it is written for Postgres, what is refused and with which words."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.column_type import ColumnType
from transforms.condition import grammar, patterns
from transforms.condition.judging import compile_judge
from transforms.condition.reading import read_condition
from transforms.condition.refusal import ConditionRefused, excerpt
from transforms.condition.rendering import render


def type_of(name: str, oid: int, *, is_enum: bool = False) -> ColumnType:
    return ColumnType(name, name, oid, is_enum=is_enum)


COLUMNS = {
    "id": type_of("integer", 23),
    "Total": type_of("numeric(10,2)", 1700),
    "ratio": type_of("real", 700),
    "name": type_of("text", 25),
    "code": type_of("character(4)", 1042),
    "active": type_of("boolean", 16),
    "date": type_of("date", 1082),
    "made": type_of("timestamp without time zone", 1114),
    "seen": type_of("timestamp with time zone", 1184),
    "token": type_of("uuid", 2950),
    "status": type_of("shop.status", 16_500, is_enum=True),
    "extra": type_of("jsonb", 3802),
    "tags": ColumnType("text[]", "text[]", 1009, 25),
    "user": type_of("text", 25),
    'odd"name': type_of("bigint", 20),
    "größe": type_of("smallint", 21),
}
TEXT = '::pg_catalog.text COLLATE pg_catalog."C"'


def written(text: str) -> str:
    return render(read_condition(text, COLUMNS))


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("id = 1", """("id" = '1'::pg_catalog.numeric)"""),
        ("ID != -5", """("id" <> '-5'::pg_catalog.numeric)"""),
        ("5.50 > id", """("id" < '5.50'::pg_catalog.numeric)"""),
        ('"Total" >= 1e2', """("Total" >= '1E+2'::pg_catalog.numeric)"""),
        ("\"Total\" < 'Infinity'", """("Total" < 'Infinity'::pg_catalog.numeric)"""),
        ("ratio <= 0.1", """("ratio" <= '0.1'::pg_catalog.float8)"""),
        ("name = 'it''s'", f"""("name"{TEXT} = 'it''s'::pg_catalog.text)"""),
        ("name = 'a\\'", f"""("name"{TEXT} = E'a\\\\'::pg_catalog.text)"""),
        ("name LIKE 'a\\_%'", f"""("name"{TEXT} LIKE E'a\\\\_%'::pg_catalog.text)"""),
        ("code = 'ab  '", """("code"::pg_catalog.bpchar COLLATE pg_catalog."C" = 'ab'::pg_catalog.bpchar)"""),
        ("status <> 'paid'", f"""("status"{TEXT} <> 'paid'::pg_catalog.text)"""),
        ("active", '"active"'),
        ("NOT active", '(NOT "active")'),
        ("active = FALSE", """("active" = 'false'::pg_catalog.bool)"""),
        ("date = '2024-02-29'", """("date" = '2024-02-29'::pg_catalog.date)"""),
        ("made < '2024-02-29T12:00'", """("made" < '2024-02-29 12:00:00'::pg_catalog.timestamp)"""),
        ("seen < '2024-02-29T01:00+02'", """("seen" < '2024-02-28 23:00:00+00'::pg_catalog.timestamptz)"""),
        (
            "token = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            """("token" = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::pg_catalog.uuid)""",
        ),
        ("extra IS NULL", '("extra" IS NULL)'),
        ("tags IS NOT NULL", '(NOT ("tags" IS NULL))'),
        ("\"user\" = 'me'", f"""("user"{TEXT} = 'me'::pg_catalog.text)"""),
        ('"odd""name" = 1', """("odd""name" = '1'::pg_catalog.numeric)"""),
        ("größe = 1", """("größe" = '1'::pg_catalog.numeric)"""),
        ("id IN (1, 2)", """("id" IN ('1'::pg_catalog.numeric, '2'::pg_catalog.numeric))"""),
        ("id NOT IN (1)", """(NOT ("id" IN ('1'::pg_catalog.numeric)))"""),
        (
            "id BETWEEN 1 AND 2 AND active",
            """((("id" >= '1'::pg_catalog.numeric) AND ("id" <= '2'::pg_catalog.numeric)) AND "active")""",
        ),
        (
            "active OR NOT id = 1 AND extra IS NULL",
            """("active" OR ((NOT ("id" = '1'::pg_catalog.numeric)) AND ("extra" IS NULL)))""",
        ),
        ("(active\n\tOR active) AND active", '(("active" OR "active") AND "active")'),
    ],
)
def test_what_is_accepted_is_written_with_quoted_names_and_typed_literals(text: str, sql: str) -> None:
    assert written(text) == sql


STRANGE = "conditions compare a column with a literal, and have nothing like this"
NOTHING_LIKE = "conditions have nothing like this"
NO_WORD = "a word of SQL that conditions do not have"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("nmae = 'x'", "the event has no such column (it has id, "),
        ("TOTAL = 1", "(at character 1: TOTAL)"),
        ("user = 'x'", f'{NO_WORD}: the column is written "user" (at character 1: user)'),
        ("name = current_user", f"{NO_WORD} (at character 8: current_user)"),
        ("id IN (SELECT 1)", f"{NO_WORD} (at character 8: SELECT)"),
        ("EXISTS (TABLE customers)", f"{NO_WORD} (at character 1: EXISTS)"),
        ("CAST(id AS text) = 'x'", f"{NO_WORD} (at character 1: CAST)"),
        ("id::text = 'x'", f"{NOTHING_LIKE} (at character 3: ::)"),
        ("lower(name) = 'x'", f"{STRANGE} (at character 1: lower(name)"),
        ('"pg_sleep"(9)', f'{STRANGE} (at character 1: "pg_sleep"(9)'),
        ("id = 1; DROP TABLE customers", f"{NOTHING_LIKE} (at character 7: ;)"),
        ("id = 1 -- x", "conditions have no comments (at character 8: -- x)"),
        ("id /* ' */ = 1", "conditions have no comments (at character 4: /* ' */ )"),
        ("name = $$x$$", f"{NOTHING_LIKE} (at character 8: $$x$$)"),
        ("name = $a$x$a$", f"{NOTHING_LIKE} (at character 8: "),
        ("name = E'x\\n'", f"{NOTHING_LIKE} (at character 8: "),
        ("name = U&'\\0061'", f"{NOTHING_LIKE} (at character 8: "),
        ('U&"\\0069d" = 1', f"{NOTHING_LIKE} (at character 2: &)"),
        ("name = 'a' 'b'", STRANGE),
        ("name = 'x", "a quoted text or name in it does not end"),
        ('name = "x"', 'a literal is expected, text in single quotes (at character 8: "x")'),
        ("id = größe", "a literal is expected, text in single quotes (at character 6: größe)"),
        ("t.id = 1", f"{NOTHING_LIKE} (at character 2: .)"),
        ("id = $1", f"{NOTHING_LIKE} (at character 6: $)"),
        ("id = %s", f"{NOTHING_LIKE} (at character 6: %)"),
        ("id = 0x1F", NOTHING_LIKE),
        ("id = 1_000", "it cannot be read from here on (at character 7: _000)"),
        ("id = 1 AND", "it cannot be read from here on (at character 8: AND)"),
        ("id = 1 id = 2", "it cannot be read from here on (at character 8: id)"),
        ("id IN ()", "IN is followed by literals in parentheses"),
        ("id + 1 = 2", f"{NOTHING_LIKE} (at character 4: +)"),
        ("id - 1 = 2", f"{STRANGE} (at character 1: id - 1)"),
        ("id = - - 1", STRANGE),
        ("1 = 1", STRANGE),
        ("TRUE", STRANGE),
        ("id", "a column of type integer is no condition by itself (at character 1: id)"),
        ("id == 1", f"{NOTHING_LIKE} (at character 4: ==)"),
        ("! active", f"{NOTHING_LIKE} (at character 1: !)"),
        ("name ~~ 'x'", f"{NOTHING_LIKE} (at character 6: ~~)"),
        ("name ILIKE 'x'", f"{NO_WORD} (at character 6: ILIKE)"),
        ("name LIKE 'x' ESCAPE '!'", "it cannot be read from here on (at character 15: ESCAPE)"),
        ("name LIKE 'x\\'", "a pattern must not end with the backslash"),
        ("id LIKE '1%'", "LIKE is for text, not for type integer (at character 1: id)"),
        ("id BETWEEN SYMMETRIC 1 AND 2", f"{NO_WORD} (at character 12: SYMMETRIC)"),
        ("id ISNULL", f"{NO_WORD} (at character 4: ISNULL)"),
        ("active IS TRUE", "IS goes with NULL alone"),
        ("id = NULL", "nothing is equal to NULL: it is found by IS NULL (at character 1: id)"),
        ("id IN (1, NULL)", "nothing is equal to NULL"),
        ("name < 'x'", "a column of type text is compared by = <> IN and LIKE, not by an order"),
        ("status BETWEEN 'a' AND 'b'", "a column of type shop.status is compared by = <> IN and LIKE, not by an order"),
        ("extra = '{}'", "a column of type jsonb can be compared with nothing but NULL (IS NULL)"),
        ("tags = '{}'", "a column of type text[] can be compared with nothing but NULL (IS NULL)"),
        ("id = '5'", "a column of type integer is compared with a number, without quotes (at character 6: '5')"),
        ("name = 5", "a column of type text is compared with text in single quotes (at character 8: 5)"),
        ("active = 't'", "a column of type boolean is compared with TRUE or FALSE"),
        ("id = 'NaN'", "a column of type integer is compared with a number"),
        ("ratio = 1e400", "a number that a double precision can hold is expected"),
        ("id = 1e1001", "a number between 1e-1000 and 1e1000 is expected"),
        ("date = 'today'", "a date is written 'YYYY-MM-DD'"),
        ("date = '2023-02-29'", "day is out of range for month"),
        ("made = '2024-01-01T00:00Z'", "the column has no time zone, so the literal must not name one"),
        ("seen = '2024-01-01'", "the column has a time zone, so the literal must name one"),
        ("seen = '0001-01-01T00:00+02'", "out of range"),
        ("token = 'x'", "a uuid is written in groups of 8, 4, 4, 4 and 12 hex digits"),
        ("name = '\0'", "Postgres has no NUL character"),
        ("name = '\udcff'", "what is not UTF-8 (at character 9: \\udcff)"),
        ("id\u00a0= 1", "(at character "),
        ("(" * 10_000 + "id = 1" + ")" * 10_000, "it has more than 10,000 characters"),
        (
            "(" * 4_000 + "id = 1" + ")" * 4_000,
            "more than 16 parentheses or NOTs within each other (at character 17: ()",
        ),
        ("NOT " * 2_000 + "active", "more than 16 parentheses or NOTs within each other"),
        ("id = " + "- " * 2_000 + "1", "more than 16 parentheses or NOTs within each other"),
        ("name = '" + "x" * 1_000_000 + "'", "it has more than 10,000 characters"),
    ],
)
def test_everything_else_is_refused_with_what_is_wrong_and_where(text: str, problem: str) -> None:
    with pytest.raises(ConditionRefused) as refused:
        read_condition(text, COLUMNS)
    assert problem in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_long_chain_is_no_deep_nesting() -> None:
    text = " OR ".join(["id = 1"] * 999)
    assert len(text) < grammar.MOST_CHARACTERS
    assert written(text).count("OR") == 998


WORDS = "AND OR NOT IN BETWEEN IS NULL LIKE TRUE FALSE = <> != < <= > >= ( ) , - id name active 'x' 1 2.5"
MORE_WORDS = "lower date interval SELECT unnest map struct filter over left * . ; :: || [ ] \" ' $$ -- /*"


SOUP = [*WORDS.split(" "), *MORE_WORDS.split(" ")]


@settings(deadline=None, max_examples=500)
@given(st.lists(st.sampled_from(SOUP), max_size=14).map(" ".join) | st.text(max_size=40))
def test_any_text_is_accepted_or_refused_and_nothing_else(text: str) -> None:
    try:
        found = written(text)
    except ConditionRefused as refused:
        found = str(refused)
    assert found.replace("\n", " ").isprintable()


@pytest.mark.parametrize(("pattern", "text"), [("%a" * 40 + "%", "a" * 39 + "b" * 20_000), ("%_a%" * 20, "b" * 20_000)])
def test_a_pattern_takes_no_time_that_grows_with_what_it_could_try(pattern: str, text: str) -> None:
    began = time.process_time()
    assert patterns.compile_pattern(pattern).fullmatch(text) is None
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "row", "verdict"),
    [
        ("id = 1 AND name = 'x'", [b"2", None], False),
        ("id = 1 AND name = 'x'", [b"1", None], None),
        ("id = 1 OR name = 'x'", [b"1", None], True),
        ("id = 1 OR name = 'x'", [b"2", None], None),
        ("NOT (id = 1 OR name = 'x')", [b"2", None], None),
        ("id IN (1, 2.0)", [b"2", None], True),
        ("id NOT IN (1, 2)", [None, None], None),
        ("name IS NULL AND id IS NOT NULL", [b"2", None], True),
        ("id > 9007199254740992", [b"9007199254740993", None], True),
        ("name LIKE '_'", [b"1", "ä".encode()], True),
    ],
)
def test_what_is_null_is_unknown(text: str, row: list[bytes | None], verdict: bool | None) -> None:
    assert compile_judge(read_condition(text, COLUMNS), ["id", "name"])(row) is verdict


def test_a_reader_that_is_never_asked_for_a_part_does_without_the_parser() -> None:
    program = "import sys, cdc.pipeline, cdc.commands; sys.exit('sqlglot' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_an_excerpt_is_short_and_acts_on_no_terminal() -> None:
    assert excerpt("a\x1b[2J\nb") == "a\\x1b[2J\\nb"
    assert excerpt("x" * 500) == "x" * 117 + "..."
