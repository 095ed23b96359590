"""What the reader stores of itself between sessions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cdc import pipeline
from cdc.errors import TransportFull
from cdc.figures import Figures
from cdc.pipeline import Reader
from cdc.progress import Progress
from tests.monitored import reader_config
from transforms.position import LSN


def test_streams_are_trimmed_up_to_the_same_position_while_a_full_redis_ends_each_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that ends with its first batch says nothing of itself, and only trimming makes room."""
    stored: list[Figures] = []

    class Full:
        progress = Progress(LSN(800), 2.0)
        life = "one@1"

        def __init__(self, *_: object) -> None: ...

        def open(self) -> None: ...

        def run(self, stop: threading.Event) -> None:
            if len(stored) >= 3:
                stop.set()
            raise TransportFull("Redis is out of memory")

        def close(self) -> None: ...

    reader = Reader(reader_config(tmp_path))
    monkeypatch.setattr(pipeline, "Opened", Full)
    monkeypatch.setattr(reader, "_store", lambda _, figures: stored.append(figures))
    monkeypatch.setattr(reader, "_pause", lambda _: None)
    reader.run()
    assert [figures.state for figures in stored] == ["streaming", "reconnecting", "streaming", "stopped"]
    told = {(figures.to_dict()["confirmed"], figures.to_dict()["confirmed_in"]) for figures in stored}
    assert told == {(str(LSN(800)), "one@1")}
