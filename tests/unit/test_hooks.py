"""What a hook is given, what becomes of what it returns, and what is told where it fails."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.hooks import expect_hooks, find_hook
from tests.builders import BIGINT, INTEGER, JSON, TEXT, column, tuple_data
from transforms.config import ConfigurationError
from transforms.encoder import compile_encoder
from transforms.hooks import Function, hooked
from transforms.row import Absent, EncodedRow, Failed, Row, Undecided
from transforms.tuple_data import UNCHANGED

JSONB, FLOAT, NUMERIC = 3802, 701, 1700
PLANTED = "PLANTED VALUE"
COLUMNS = {"id": INTEGER, "name": TEXT, "price": NUMERIC, "ratio": FLOAT, "huge": BIGINT, "doc": JSON, "docb": JSONB}
ROW = (b"1", b"Ada", b"1.50", b"1e-07", b"9007199254740993", b'{"a": 1.10,  "a":2 }', b'{"n": 1}')
STATE = (
    b'{"id":1,"name":"Ada","price":"1.50","ratio":1e-07,"huge":9007199254740993,"doc":{"a": 1.10,  "a":2 },'
    b'"docb":{"n": 1}}'
)


def encoded(function: Function, *row: bytes | None) -> EncodedRow:
    relation = [column(name, oid) for name, oid in COLUMNS.items()]
    encoder = hooked(compile_encoder(relation, list(COLUMNS), ["id"]), lambda: function, ["id"])
    made = encoder.row(tuple_data(*(row or ROW)), 0, 0)
    line = b"\t".join(b"\\N" if value is None else value.replace(b"\\", b"\\\\") for value in (row or ROW)) + b"\n"
    assert encoder.lines([line]) == [made], "a row that a query finds is another one"
    assert (encoder.upserts, encoder.transactions) == (None, None)
    assert not isinstance(made, Undecided)
    return made


def setting(**values: object) -> Function:
    return lambda state: state | values


def state_of(row: EncodedRow) -> dict[str, Any]:
    assert not isinstance(row, Absent | Failed)
    found: dict[str, Any] = json.loads(row[1])
    return found


def test_a_hook_is_given_the_state_with_exact_numbers() -> None:
    shown: list[dict[str, Any]] = []

    def look(state: dict[str, Any]) -> dict[str, Any]:
        shown.append(state)
        return state

    encoded(look)
    assert shown[0] == {
        "id": 1,
        "name": "Ada",
        "price": "1.50",
        "ratio": Decimal("1e-07"),
        "huge": 9007199254740993,
        "doc": {"a": 2},
        "docb": {"n": 1},
    }


def test_what_a_hook_does_not_touch_is_published_byte_for_byte() -> None:
    assert encoded(lambda state: state) == (b'{"id":1}', STATE)
    assert encoded(lambda state: dict(reversed(state.items()))) == (b'{"id":1}', STATE)
    assert encoded(setting(name="Bo")) == (b'{"id":1}', STATE.replace(b"Ada", b"Bo"))


texts = st.text(st.characters(codec="utf-8"), max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(json_values, st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")]))
def test_any_document_comes_out_as_it_went_in_and_a_changed_one_as_it_was_changed(
    document: object, separators: tuple[str, str]
) -> None:
    text = json.dumps(document, separators=separators, ensure_ascii=False)
    if text == "null":
        return
    relation = [column("id", INTEGER), column("doc", JSON)]
    plain = compile_encoder(relation, ["id", "doc"], ["id"])
    data = tuple_data(b"1", text.encode())
    as_it_was: Any = hooked(plain, lambda: lambda state: state, ["id"]).row(data, 0, 0)
    row: Any = plain.row(data, 0, 0)
    assert Row(*as_it_was) == Row(*row)
    if Row(*row).quoted:
        return
    wrapped = hooked(plain, lambda: lambda state: state | {"doc": [state["doc"], Decimal("1.10")]}, ["id"])
    assert state_of(wrapped.row(data, 0, 0))["doc"] == [document, 1.1]  # type: ignore[arg-type]


def test_a_document_that_is_changed_in_place_is_written_anew() -> None:
    def change(state: dict[str, Any]) -> dict[str, Any]:
        state["docb"]["n"] += 1
        return state

    assert encoded(change) == (b'{"id":1}', STATE.replace(b'{"n": 1}', b'{"n":2}'))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"null"),
        (True, b"true"),
        (1.5, b"1.5"),
        (Decimal("1.50"), b"1.50"),
        (10**30, b"1" + b"0" * 30),
        ("Łódź\n", '"Łódź\\n"'.encode()),
        ((1, [None]), b"[1,[null]]"),
    ],
)
def test_whatever_json_has_may_be_returned(value: object, written: bytes) -> None:
    assert encoded(setting(name=value)) == (b'{"id":1}', STATE.replace(b'"Ada"', written))


def test_a_row_for_which_it_says_none_is_not_of_the_event() -> None:
    assert encoded(lambda state: None) == Absent(b'{"id":1}')


def test_a_json_field_that_is_quoted_stays_so_while_it_is_a_string() -> None:
    row = (*ROW[:6], b"null")
    assert encoded(lambda state: state, *row) == Row(b'{"id":1}', STATE.replace(b'{"n": 1}', b'"null"'), (), ("docb",))
    assert encoded(setting(docb="7"), *row) == Row(b'{"id":1}', STATE.replace(b'{"n": 1}', b'"7"'), (), ("docb",))
    assert encoded(setting(docb=None), *row) == (b'{"id":1}', STATE.replace(b'{"n": 1}', b"null"))


def recursive(state: dict[str, Any]) -> dict[str, Any]:
    state["doc"]["a"] = state
    return state


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda state: state["nothing"], "KeyError"),
        (lambda state: int(state["name"]), "ValueError"),
        (lambda state: exit(PLANTED), "SystemExit"),
        (lambda state: [state], "FieldsChanged"),
        (lambda state: {**state, "more": 1}, "FieldsChanged"),
        (lambda state: {"id": 1}, "FieldsChanged"),
        (setting(id=2), "KeyChanged"),
        (setting(id="1"), "KeyChanged"),
        (setting(id=True), "KeyChanged"),
        (setting(name=float("nan")), "NotJson"),
        (setting(name=Decimal("Infinity")), "NotJson"),
        (setting(name=b"bytes"), "NotJson"),
        (setting(name={1: 2}), "NotJson"),
        (setting(name="\ud800"), "UnicodeEncodeError"),
        (recursive, "RecursionError"),
    ],
)
def test_a_hook_that_fails_is_told_by_the_errors_class_and_a_line_of_its_own(
    function: Callable[[dict[str, Any]], Any], error: str
) -> None:
    failed = encoded(function)
    assert isinstance(failed, Failed)
    assert (failed.key, failed.error) == (b'{"id":1}', error)
    file, _, line = failed.line.rpartition(":")
    assert (file, line.isdigit()) == (__file__, True)


def test_the_line_is_the_hooks_own_innermost_one() -> None:
    def inner(state: dict[str, Any]) -> dict[str, Any]:
        return json.loads(state["name"])  # type: ignore[no-any-return]

    failed = encoded(lambda state: inner(state))
    assert isinstance(failed, Failed)
    assert failed.line == f"{__file__}:{inner.__code__.co_firstlineno + 1}"


def test_a_row_that_is_not_whole_is_not_shown_to_it() -> None:
    relation = [column("id", INTEGER), column("doc", JSON)]

    def never(state: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError

    encoder = hooked(compile_encoder(relation, ["id", "doc"], ["id"]), lambda: never, ["id"])
    assert encoder.row(tuple_data(b"1", UNCHANGED), 0, 0) == Row(b'{"id":1}', b'{"id":1}', ("doc",))


# Finding it


class Event(NamedTuple):
    name: str
    transform: str | None


def test_hooks_are_found_where_python_finds_modules_and_all_mistakes_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found_hooks.py").write_text("class order:\n    keep = staticmethod(lambda state: state)\nnumber = 1\n")
    (tmp_path / "broken_hooks.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    events = [
        Event("plain", None),
        Event("kept", "found_hooks:order.keep"),
        Event("absent", "no_such_module:order"),
        Event("nameless", "found_hooks:order.drop"),
        Event("number", "found_hooks:number"),
        Event("broken", "broken_hooks:order"),
    ]
    with pytest.raises(ConfigurationError) as raised:
        expect_hooks(events)
    assert raised.value.problems == (
        "events.absent.transform: no_such_module cannot be imported: ModuleNotFoundError: No module named"
        " 'no_such_module'",
        "events.nameless.transform: found_hooks has no order.drop",
        "events.number.transform: found_hooks:number is no function",
        "events.broken.transform: broken_hooks cannot be imported: ZeroDivisionError: division by zero",
    )
    assert find_hook("found_hooks:order.keep") is find_hook("found_hooks:order.keep")
