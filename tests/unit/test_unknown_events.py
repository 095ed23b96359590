"""What is said of an event that a sink maps and nobody has published."""

from __future__ import annotations

import pytest

from sinks.unknown_events import missing_events, nearest

KNOWN = ("customer.v1", "customer.v2", "order.v1", "order_line.v1")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("custmer.v1", "customer.v1"),
        ("customers.v1", "customer.v1"),
        ("custmer.v2", "customer.v2"),
        ("custmer.v7", "customer.v2"),
        ("customer.v3", "customer.v2"),
        ("orderline.v1", "order_line.v1"),
        ("invoice.v1", None),
        ("a.v1", None),
    ],
)
def test_the_nearest_published_event_is_found(label: str, expected: str | None) -> None:
    assert nearest(label, KNOWN, (label,)) == expected


def test_what_is_mapped_already_was_not_meant() -> None:
    assert nearest("orders.v1", ("order.v1",), ("order.v1", "orders.v1")) is None


def test_a_name_written_wrong_is_told_with_the_right_one() -> None:
    reason, remedy = missing_events(["custmer.v1", "invoice.v1"], KNOWN, ["custmer.v1", "invoice.v1"], "billing")
    assert reason == "no schema document is published yet of custmer (did you mean customer?), invoice"
    assert remedy.startswith("Correct [sinks.billing.tables] and start again; or give")


@pytest.mark.parametrize("known", [(), ("order.v1",), None])
def test_an_event_that_is_still_to_be_published_is_told_without_a_guess(known: tuple[str, ...] | None) -> None:
    reason, remedy = missing_events(["customer.v2"], known, ["customer.v2"], "billing")
    assert reason == "no schema document is published yet of customer.v2"
    assert remedy.startswith("Give the source's configuration a section")
