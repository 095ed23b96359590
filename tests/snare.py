"""A proxy in front of Redis that lets something happen at one place of a conversation."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.faults.proxy import Proxy


class Snare:
    """Springs once: calls `on_bait` before it would pass on what a client sends with `bait` in it, and hangs up."""

    def __init__(self, url: str, bait: bytes, is_set: Callable[[], bool] = lambda: True) -> None:
        """`is_set`: whether it springs now, or lets the bait go."""
        self._bait, self._is_set = bait, is_set
        self.on_bait: Callable[[], None] = lambda: None
        self.sprung = threading.Event()
        self._proxy, self.url = Proxy.of_url(url, self._takes)

    def close(self) -> None:
        self._proxy.close()

    def _takes(self, sent: bytes) -> bool:
        """`sent`: what a client has sent last, a bit of what came before included."""
        if self.sprung.is_set() or self._bait not in sent or not self._is_set():
            return False
        self.on_bait()
        self.sprung.set()
        return True
