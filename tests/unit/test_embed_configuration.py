"""Embeds in the configuration file: what is accepted, and the exact line that tells each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdc.config import ReaderConfig, load_reader_config
from cdc.related.mapping import tables_of
from transforms.config import ConfigurationError
from transforms.names import TableName

BEFORE = """
[pipeline]
name = "shop"
[source]
dsn = "postgresql://db/shop"
[transport]
url = "redis://redis"
[events.order]
table = "orders"
columns = ["id", "status"]
rename = { status = "state" }
"""
LINES = """
[events.order.embed.lines]
table = "order_lines"
on = { order_id = "id" }
columns = ["sku", "quantity"]
"""
PRODUCT = """
[events.order.embed.lines.embed.product]
table = "products"
on = { sku = "sku" }
columns = ["title", "cost"]
many = false
rename = { title = "name" }
mask = { cost = "redact" }
"""
MAKER = """
[events.order.embed.lines.embed.product.embed.maker]
table = "makers"
on = { id = "maker_id" }
columns = ["name"]
many = false
"""


def load(tmp_path: Path, text: str) -> ReaderConfig:
    (tmp_path / "cdc.toml").write_text(BEFORE + text)
    return load_reader_config(tmp_path / "cdc.toml", {})


def test_embeds_nest_to_three_levels(tmp_path: Path) -> None:
    [order] = load(tmp_path, LINES + PRODUCT + MAKER).events
    [lines] = order.embeds
    [product] = lines.embeds
    [maker] = product.embeds
    assert (lines.name, lines.on, lines.columns, lines.many) == ("lines", {"order_id": "id"}, ("sku", "quantity"), True)
    assert (product.names, product.mask, product.many) == (("name", "cost"), {"cost": "redact"}, False)
    assert maker.name == "maker"
    names = ("orders", "order_lines", "products", "makers")
    assert tables_of(order) == tuple(TableName("public", name) for name in names)


def test_there_is_no_old_state_of_what_is_read_from_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(tmp_path, "previous = true\n" + LINES)
    [problem] = refusal.value.problems
    assert problem.startswith("events.order.previous: an event with embeds is read from its tables")


WITHIN = LINES + PRODUCT
TWICE = "give the embed another"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[events.order.embed.lines]", ".lines.table: missing: expected a table's name as SQL writes it"),
        (LINES + "may = 1", '.lines.may: unknown key (did you mean "many"?)'),
        (LINES + 'many = "yes"', ".lines.many: expected true or false, got text"),
        (
            LINES.replace('{ order_id = "id" }', "{}"),
            '.lines.on: expected at least one column of each, like { order_id = "id" }',
        ),
        (LINES.replace('"id"', '""'), ".lines.on: a column is an empty name"),
        (
            LINES.replace('"sku", "quantity"', '"*"'),
            '.lines.columns: expected column names, got "*": what an embed holds is listed',
        ),
        (LINES.replace('"quantity"', '"sku"'), ".lines.columns: column 2 is the same as column 1"),
        (
            LINES.replace("lines", "Lines"),
            ".Lines: expected a name for the field that matches [a-z][a-z0-9_]{0,62}, got other text",
        ),
        (LINES.replace("embed.lines", "embed.state"), f".state: the event has a column of this name: {TWICE}"),
        (
            LINES + 'rename = { sku = "quantity" }',
            ".lines.rename.sku: another field of the event has this name already",
        ),
        (LINES + 'rename = { price = "cost" }', ".lines.rename.price: no such column among the event's columns"),
        (
            LINES + PRODUCT.replace("embed.product", "embed.sku"),
            f".lines.embed.sku: its table has a field of this name: {TWICE}",
        ),
        (
            LINES + PRODUCT.replace('"redact"', '"hash"'),
            '.lines.embed.product.mask.cost: a hash needs a key: set masking.hash_key = "${MASK_KEY}"',
        ),
        (
            WITHIN + MAKER.replace("columns", "colums"),
            '.lines.embed.product.embed.maker.colums: unknown key (did you mean "columns"?)',
        ),
        (
            WITHIN + MAKER + MAKER.replace("embed.maker", "embed.maker.embed.owner"),
            ".lines.embed.product.embed.maker.embed: embeds nest to 3 levels, this would be another one",
        ),
        ("embed = 1", ": expected a section, got a number"),
    ],
)
def test_a_mistake_is_told_on_its_line(tmp_path: Path, text: str, mistake: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        load(tmp_path, text)
    assert f"events.order.embed{mistake}" in refusal.value.problems
