"""The frames of streaming replication, byte for byte as the manual lays them out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import walsender
from cdc.walsender import PrimaryKeepalive
from tests import builders
from transforms.position import LSN
from transforms.tuple_data import MalformedMessage

KEEPALIVE = bytes.fromhex("6b 00000016b374d848 0002cd9f0e8fd6a0 01")


def test_a_keepalive_tells_the_end_of_the_log_and_whether_an_answer_is_wanted() -> None:
    assert walsender.decode_keepalive(KEEPALIVE) == PrimaryKeepalive(LSN.parse("16/B374D848"), reply_requested=True)
    assert walsender.decode_keepalive(KEEPALIVE[:-1] + b"\0").reply_requested is False


def test_the_largest_position_is_read_as_it_is() -> None:
    largest = walsender.decode_keepalive(builders.keepalive(2**64 - 1)).wal_end
    assert str(largest) == "FFFFFFFF/FFFFFFFF"


@pytest.mark.parametrize("size", range(len(KEEPALIVE)))
def test_every_truncation_of_a_keepalive_is_refused(size: int) -> None:
    with pytest.raises(MalformedMessage, match=f"a keepalive of {size} bytes"):
        walsender.decode_keepalive(KEEPALIVE[:size])


def test_a_keepalive_that_is_too_long_is_refused() -> None:
    with pytest.raises(MalformedMessage):
        walsender.decode_keepalive(KEEPALIVE + b"\0")


def test_a_status_update_holds_what_was_received_and_what_may_be_forgotten() -> None:
    frame = walsender.encode_status_update(LSN.parse("16/B374D848"), LSN.parse("16/B374D800"), 5, reply_requested=True)
    received, confirmed = "00000016b374d848", "00000016b374d800"
    assert frame.hex(" ", 1).replace(" ", "") == f"72{received}{confirmed}{confirmed}000000000000000501"


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_any_position_and_time_can_be_told(received: int, confirmed: int, at: int, reply: bool) -> None:
    frame = walsender.encode_status_update(LSN(received), LSN(confirmed), at, reply_requested=reply)
    assert len(frame) == 34
    assert int.from_bytes(frame[1:9], "big") == received
    assert frame[9:17] == frame[17:25] == confirmed.to_bytes(8, "big")
    assert int.from_bytes(frame[25:33], "big", signed=True) == at
    assert frame[33] == reply


def test_the_message_lies_behind_a_header_of_25_bytes() -> None:
    frame = builders.xlog_data(b"payload")
    assert frame[0] == walsender.XLOG_DATA
    assert frame[walsender.XLOG_DATA_HEADER_BYTES :] == b"payload"
