"""Who has not read what, as figures whose number is bounded."""

from __future__ import annotations

from cdc.retention.figures import MOST_NAMED, Unread, named
from cdc.retention.judging import Backlog, Holder
from transforms.position import START


def unread(consumer: str, size_bytes: int, seconds: float = 0.0, stream: str = "customer") -> Unread:
    return Unread(stream, consumer, "external", size_bytes, seconds)


def test_a_sink_and_a_group_that_is_not_ours_are_told_apart() -> None:
    kinds = [Unread.of("customer", Backlog(Holder("x", START, is_sink), 1, 2), 0.0).kind for is_sink in (True, False)]
    assert kinds == ["sink", "external"]


def test_the_epochs_of_a_stream_count_together() -> None:
    assert named([unread("audit", 10, 5.0), unread("audit", 7, 90.0)]) == [unread("audit", 17, 90.0)]


def test_groups_without_number_are_ten_by_name_and_the_rest_as_one_in_each_stream() -> None:
    many = [unread(f"group-{number}", number, float(number), stream) for number in range(50) for stream in ("a", "b")]
    found = named(many)
    assert len(found) == 2 * (MOST_NAMED + 1)
    assert {each.consumer for each in found if each.kind == "external"} == {f"group-{n}" for n in range(40, 50)}
    (rest,) = [each for each in found if each.kind == "others" and each.stream == "a"]
    assert (rest.size_bytes, rest.holding_seconds) == (sum(range(40)), 39.0)
    assert sum(each.size_bytes for each in found) == sum(each.size_bytes for each in many)


def test_a_group_with_the_name_of_the_rest_is_not_taken_for_it() -> None:
    found = named([unread("others", 99), *(unread(f"g{number}", 1) for number in range(MOST_NAMED))])
    assert {each[:3] for each in found} >= {("customer", "others", "external"), ("customer", "others", "others")}
    assert len({each[:3] for each in found}) == len(found)
