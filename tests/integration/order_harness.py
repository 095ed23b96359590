"""An event with embeds, and what a sink has of it: what tests of embeds are written with."""

from __future__ import annotations

from typing import Any

from tests.integration.sink_harness import Pipeline, Words, column, delete, upsert
from transforms.schema import EmbedSchema, SchemaColumn, SchemaDocument


def embed(name: str, *columns: SchemaColumn, key: tuple[str, ...] = (), many: bool = True) -> SchemaColumn:
    return SchemaColumn(name, "jsonb", "jsonb", not many, embed=EmbedSchema(many, key, columns))


PRODUCT = embed("product", column("title", "text"), many=False)
LINES = embed(
    "lines", column("id", "integer"), column("sku", "text"), column("price", "numeric(10,2)"), PRODUCT, key=("id",)
)
TAGS = embed("tags", column("word", "text"))
CUSTOMER = embed("customer", column("id", "bigint"), column("name", "text"), key=("id",), many=False)
ORDER = SchemaDocument(
    "order",
    1,
    "order",
    ("id",),
    (column("id", "integer", nullable=False), column("status", "text"), LINES, TAGS, CUSTOMER),
)


def line(id_: int, sku: str, price: str = "1.00", title: str | None = None) -> dict[str, object]:
    return {"id": id_, "sku": sku, "price": price, "product": title and {"title": title}}


def order(id_: int, status: str, *lines: dict[str, object], tags: str = "", customer: Any = None) -> Words:
    state = {"id": id_, "status": status, "lines": lines, "tags": [{"word": word} for word in tags.split()]}
    return upsert({"id": id_}, state | {"customer": customer}, type_="order.v1")


def remove(id_: int) -> Words:
    return delete({"id": id_}, "order.v1")


def lines_of(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT order_id, id, sku FROM replica.lines ORDER BY order_id, id")


def tags_of(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT order_id, ordinal, word FROM replica.tags ORDER BY order_id, ordinal")


def customers_of(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT order_id, id, name FROM replica.customer ORDER BY order_id")
