"""JSON Schema and generated models: what consumers are promised of an event, and what they build on it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts import Contract, contract_of, imported, problems_of
from transforms.model_names import class_name, field_names
from transforms.model_source import models
from transforms.schema import EmbedSchema, SchemaColumn, SchemaDocument


def column(name: str, type_: str, *, nullable: bool = False, masked: str | None = None) -> SchemaColumn:
    return SchemaColumn(name, type_, type_, nullable, masked)


PRODUCT = EmbedSchema(False, (), (column("name", "text"), column("maker", "text", nullable=True)))
LINES = EmbedSchema(
    True, ("id",), (column("id", "bigint"), SchemaColumn("product", "jsonb", "jsonb", True, None, PRODUCT))
)
ORDER = SchemaDocument(
    "order",
    2,
    "order",
    ("id",),
    (
        column("id", "bigint"),
        column("total", "numeric(12,2)"),
        column("placed", "timestamp with time zone"),
        column("due", "date", nullable=True),
        column("tags", "text[]", nullable=True),
        column("extra", "jsonb"),
        column("email", "text", nullable=True, masked="hash"),
        column("secret", "integer", nullable=True, masked="null"),
        SchemaColumn("lines", "jsonb", "jsonb", False, None, LINES),
        column("note", "text", nullable=True),
    ),
    2,
    (
        ("id", "total", "placed", "due", "tags", "extra", "email", "secret", "lines"),
        ("id", "total", "placed", "due", "tags", "extra", "email", "secret", "lines", "note"),
    ),
)
STATE: dict[str, Any] = {
    **{"id": 1, "total": "9.50", "placed": "2024-02-29T12:00:00.123456Z", "due": "2024-03-01", "tags": ["a", None]},
    **{"extra": {"a": [1, None]}, "email": "k1:00ff", "secret": None, "note": "x"},
    "lines": [{"id": 7, "product": {"name": "Tea", "maker": None}}, {"id": 8, "product": None}],
}


def contract(*columns: SchemaColumn) -> Contract:
    document = SchemaDocument("thing", 1, "thing", (), columns)
    return contract_of(document.to_json().encode())


def problems(of: Contract, state: object, key: object = {}, **more: str) -> list[str]:
    fields = {name.encode(): text.encode() for name, text in more.items()}
    return problems_of(of, {b"op": b"upsert", b"key": dumped(key), b"state": dumped(state), **fields})


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def order() -> Contract:
    return contract_of(ORDER.to_json().encode())


def test_a_state_as_it_is_published_is_valid_and_parses(order: Contract) -> None:
    assert problems(order, STATE, {"id": 1}) == []
    parsed: Any = order.model.model_validate_json(json.dumps(STATE))
    assert (str(parsed.total), parsed.placed.year, parsed.tags, parsed.lines[0].product.name) == (
        "9.50",
        2024,
        ["a", None],
        "Tea",
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "1"}, "id"),
        ({"id": None}, "id"),
        ({"id": 2**63}, "id"),
        ({"total": 9.5}, "total"),
        ({"total": "9,50"}, "total"),
        ({"placed": "2024-02-29 12:00:00+00"}, "placed"),
        ({"due": "2024-02-29T12:00:00Z"}, "due"),
        ({"tags": [1]}, "tags"),
        ({"tags": 1}, "tags"),
        ({"secret": 7}, "secret"),
        ({"lines": None}, "lines"),
        ({"lines": [{"product": None}]}, "lines.0"),
        ({"lines": [{"id": 7, "product": {"maker": "x"}}]}, "lines.0.product"),
    ],
)
def test_a_state_that_breaks_the_promise_is_found(order: Contract, changes: dict[str, Any], field: str) -> None:
    found = problems(order, STATE | changes, {"id": 1})
    assert [one for one in found if one.startswith(f"{field}:")], found


def test_a_key_that_breaks_the_promise_is_found(order: Contract) -> None:
    assert problems_of(order, {b"op": b"delete", b"key": b'{"id":1}'}) == []
    for key in (b"{}", b'{"id":"1"}', b"[]"):
        assert problems_of(order, {b"op": b"delete", b"key": key}), key


def test_an_old_state_is_held_to_the_same_promise(order: Contract) -> None:
    entry = {b"op": b"delete", b"key": b'{"id":1}', b"previous": dumped(STATE)}
    assert problems_of(order, entry) == []
    assert problems_of(order, entry | {b"previous": dumped(STATE | {"total": 1})})


def test_every_field_must_be_there_but_those_of_later_revisions_and_what_partial_names(order: Contract) -> None:
    without = {name: value for name, value in STATE.items() if name != "note"}
    assert problems(order, without, {"id": 1}) == []
    del without["total"]
    assert problems(order, without, {"id": 1})
    assert problems(order, without, {"id": 1}, partial='["total"]') == []


def test_fields_that_are_not_known_yet_are_let_through(order: Contract) -> None:
    assert problems(order, STATE | {"added": 1}, {"id": 1}) == []


@pytest.mark.parametrize(
    ("type_", "values"),
    [
        ("timestamp with time zone", ["infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "10000-01-01 00:00:00+00"]),
        ("timestamp without time zone", ["2024-02-29T24:00:00", "2024-02-29T12:00:00.5", "infinity"]),
        ("date", ["infinity", "0044-03-15 BC", "5874897-12-31"]),
        ("time without time zone", ["24:00:00", "00:00:00.000001"]),
        ("time with time zone", ["12:00:00+02", "12:00:00-15:59:59"]),
        ("numeric", ["NaN", "Infinity", "-Infinity", "-0.00", "1" * 400]),
        ("real", ["NaN", "-Infinity", 1.5, -0.0, 1]),
        ("integer[]", ["[0:1]={1,2}", [[1, None], [2, 3]], []]),
        ("shop.amount[]", [[1, "a", True, None]]),
        ("character varying(3)", ["äöü", "🦆🦆🦆"]),
        ("uuid", ["00000000-0000-0000-0000-000000000000"]),
        ("bytea", ["\\x", "\\x00ff"]),
    ],
)
def test_odd_values_are_valid_and_parse(type_: str, values: Sequence[object]) -> None:
    one = contract(column("v", type_))
    for value in values:
        assert problems(one, {"v": value}) == [], value


# What the module is like


AWKWARD = SchemaDocument(
    "order_line",
    10,
    "order_line",
    ("id", 'a"b\\\n'),
    tuple(
        column(name, type_, nullable=nullable)
        for name, type_, nullable in (
            *(("id", "uuid", False), ('a"b\\\n', "bigint", False), ("class", "text", True), ("date", "date", True)),
            *(("json", "json", False), ("copy", "text", False), ("model_config", "text", False), ("_id", "oid", True)),
            *(("größe nr. 1", "real", False), ("1st", "boolean", False), ("str", "text", False), ("🦆", "text", False)),
            *(
                ("State", "time without time zone", False),
                ("x" * 63, "numeric[]", True),
                ("y" * 62 + " ", "text", True),
            ),
            *(("ﬀ", "text", False), ("ff", 'shop."a""""\n"', False), ("id_", "interval", False), ("'", "text", False)),
        )
    ),
)


def test_a_module_is_what_ruff_would_leave_it_and_strict_mypy_takes_it(tmp_path: Path) -> None:
    """The text is looked at as a consumer's own checks would."""
    several = tmp_path / "several.py"
    several.write_text(models("shop", [ORDER, AWKWARD]))
    alone = tmp_path / "alone.py"
    alone.write_text(models("shop", [SchemaDocument("a", 1, "a", ("id",), (column("id", "integer"),))]))
    for command in (
        ["ruff", "format", "--isolated", "--diff"],
        ["ruff", "check", "--isolated", "--select", "F,I"],
        ["mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, str(several), str(alone)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_same_documents_make_the_same_module() -> None:
    assert models("shop", [ORDER, AWKWARD]) == models("shop", [ORDER, AWKWARD])


def test_fields_that_python_cannot_name_are_read_by_their_own_names() -> None:
    module = imported(models("shop", [AWKWARD]))
    fields: dict[str, pydantic.fields.FieldInfo] = module.OrderLineV10.model_fields
    assert tuple(info.alias or name for name, info in fields.items()) == AWKWARD.names
    assert [name for name in fields if fields[name].alias is None] == [
        *("id", "date", "x" * 63, "ff", "id_"),
    ]


def test_a_class_tells_its_event_revision_and_key() -> None:
    assert imported(models("shop", [ORDER])).OrderV2.__doc__ == "The state of order.v2, revision 2. Key: id."


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), unique=True))
def test_any_names_of_columns_make_distinct_fields(names: list[str]) -> None:
    columns = tuple(column(name, "text") for name in names)
    module = imported(models("shop", [SchemaDocument("a", 1, "a", (), columns)]))
    state = {name: str(number) for number, name in enumerate(names)}
    assert module.AV1.model_validate(state).model_dump(by_alias=True) == state


@given(st.text(min_size=1))
def test_a_field_s_name_is_one_that_pydantic_takes(name: str) -> None:
    [made] = field_names([name], ())
    assert made.isidentifier()
    assert not made.startswith("_")
    assert not hasattr(pydantic.BaseModel, made)


def test_names_that_would_be_the_same_are_told_apart() -> None:
    assert class_name("a_1.v1", {"A1V1"}) == "A1V1_2"
    assert field_names(["class", "ﬀ", "ff", "class_"], ()) == ["class_2", "ff_2", "ff", "class_"]


def test_the_schemas_are_valid_ones() -> None:
    for document in (ORDER, AWKWARD):
        jsonschema.Draft202012Validator.check_schema(document.json_schema())
