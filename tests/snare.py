"""A proxy in front of Redis that lets something happen at one place of a conversation."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit


class Snare:
    """Springs once: calls `on_bait` before it would pass on what a client sends with `bait` in it, and hangs up."""

    def __init__(self, url: str, bait: bytes, is_set: Callable[[], bool] = lambda: True) -> None:
        """`is_set`: whether it springs now, or lets the bait go."""
        self._there = urlsplit(url)
        self._bait, self._is_set = bait, is_set
        self.on_bait: Callable[[], None] = lambda: None
        self.sprung = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f"{self._there.hostname}:{self._there.port}", f"127.0.0.1:{port}")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection((self._there.hostname, self._there.port))
            for here, there, watched in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass_on, args=(here, there, watched), daemon=True).start()

    def _pass_on(self, here: socket.socket, there: socket.socket, watched: bool) -> None:
        tail = b""
        with here, there:
            try:
                while data := here.recv(1 << 16):
                    if watched and not self.sprung.is_set() and self._bait in tail + data and self._is_set():
                        self.on_bait()
                        self.sprung.set()
                        return
                    tail = data[-len(self._bait) :]
                    there.sendall(data)
            except OSError:  # the other side has ended
                return
