"""How `cdc init` names pipelines and events, and which columns it takes for personal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.init.event_names import event_names, pipeline_name, singular
from cdc.init.personal import looks_personal, personal_columns
from cdc.init.words import words
from transforms.names import EVENT_NAME, PIPELINE_NAME, RESERVED_NAMES, TableName

identifiers = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda name: len(name.encode()) <= 63
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("home_address", ["home", "address"]),
        ("HomeAddress", ["home", "address"]),
        ("HTTPStatus2xx", ["http", "status2xx"]),
        ("Größe (m²)", ["grosse", "m2"]),
        ("prénom", ["prenom"]),
        ("заказы", []),
        ("", []),
    ],
)
def test_a_name_is_its_words(name: str, expected: list[str]) -> None:
    assert words(name) == expected


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        ("orders", "order"),
        ("categories", "category"),
        ("boxes", "box"),
        ("branches", "branch"),
        ("addresses", "address"),
        ("statuses", "status"),
        ("houses", "house"),
        ("movies", "movie"),
        ("people", "person"),
        ("status", "status"),
        ("address", "address"),
        ("news", "news"),
        ("series", "series"),
        ("analysis", "analysis"),
        ("gas", "gas"),
        ("history", "history"),
    ],
)
def test_an_event_is_named_in_the_singular(plural: str, expected: str) -> None:
    assert singular(plural) == expected


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("shop", "shop"),
        ("Shop-Production", "shop_production"),
        ("2024_shop", "db_2024_shop"),
        ("магазин", "table"),
        ("x" * 63, "x" * 31),
    ],
)
def test_a_pipeline_is_named_after_the_database(database: str, expected: str) -> None:
    assert pipeline_name(database) == expected


def names(*tables: str) -> list[str]:
    parsed = [TableName.parse(table) for table in tables]
    return [event_names(parsed)[table] for table in parsed]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        (["orders", "sales.customers"], ["order", "customer"]),
        (['public."Order Lines"', 'public."OrderItems"'], ["order_line", "order_item"]),
        (["public.orders", "sales.orders"], ["public_order", "sales_order"]),
        (["public.orders", 'public."Orders"'], ["public_order", "public_order_2"]),
        (["status", "meta", "requests", "schema"], ["public_status", "public_meta", "request", "public_schema"]),
        (['public."заказы"', 'public."клиенты"'], ["public_table", "public_table_2"]),
        (['public."1st"'], ["t_1st"]),
    ],
)
def test_events_are_named_after_their_tables(tables: list[str], expected: list[str]) -> None:
    assert names(*tables) == expected


@given(st.lists(st.builds(TableName, identifiers, identifiers), unique=True, max_size=20))
def test_any_tables_get_names_that_are_allowed_and_differ(tables: list[TableName]) -> None:
    chosen = event_names(tables)
    assert set(chosen) == set(tables)
    assert len(set(chosen.values())) == len(tables)
    for name in chosen.values():
        assert EVENT_NAME.fullmatch(name)
        assert name not in RESERVED_NAMES


@given(st.lists(st.builds(TableName, identifiers, identifiers), unique=True, max_size=6))
def test_names_do_not_depend_on_the_order_of_the_tables(tables: list[TableName]) -> None:
    assert event_names(tables) == event_names(tables[::-1])


@given(identifiers)
def test_any_database_gives_a_pipelines_name(database: str) -> None:
    assert PIPELINE_NAME.fullmatch(pipeline_name(database))


@pytest.mark.parametrize(
    "column",
    re.findall(
        r"\w+",
        """
    email e_mail EmailAddress contact_email email_id phone mobile_number telefon first_name firstName lastname
    surname vorname prénom apellidos address billing_address Straße street plz zip_code birth_date date_of_birth
    dob geburtsdatum gender ssn tax_id dni iban credit_card card_number cvv password password_hash contraseña
    api_key access_token client_secret pin ip ip_address remote_addr user_agent salary passport_number
    mot_de_passe
    """,
    ),
)
def test_a_column_that_looks_personal(column: str) -> None:
    assert looks_personal("things", column)


@pytest.mark.parametrize(
    "column",
    re.findall(
        r"\w+",
        """
    id name title total created_at status address_id email_verified email_verified_at card_type token_count
    shipping zipped description country currency quantity emailable cardinality spinner hotel skip_reason
    assignee_id version pinned
    """,
    ),
)
def test_a_column_that_does_not_look_personal(column: str) -> None:
    assert not looks_personal("products", column)


@pytest.mark.parametrize("table", ["customers", "app_users", "Kunden", "EmployeeRecord"])
def test_a_name_is_personal_in_a_table_about_people(table: str) -> None:
    assert looks_personal(table, "name")
    assert not looks_personal("products", "name")


def test_a_column_of_the_key_is_never_left_out() -> None:
    assert personal_columns("users", ["email", "phone", "plan"], key=["email"]) == ("phone",)
