"""The HTTP server behind `--metrics-port`, in a thread of its own."""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import WSGIApplication

from prometheus_client.exposition import ThreadingWSGIServer

from transforms.errors import EXIT_USAGE, StatecastError

log = logging.getLogger(__name__)


class EndpointUnavailable(StatecastError):
    """The address of the metrics is taken, or not one of this machine."""

    exit_code = EXIT_USAGE
    remedy = "Choose another --metrics-port (0 takes a free one) or --metrics-host."


class _Server(ThreadingWSGIServer):
    def server_bind(self) -> None:
        """Without looking up a name for the address, which a broken name server would delay."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _ServerOnIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


@contextmanager
def serving(application: WSGIApplication, host: str, port: int) -> Iterator[int]:
    """Answer requests until the block ends; gives the port. Raises EndpointUnavailable."""
    kind = _ServerOnIPv6 if ":" in host else _Server
    try:
        server = make_server(host, port, application, server_class=kind, handler_class=_Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise EndpointUnavailable(f"metrics cannot be served on {host} port {port}: {reason}") from error
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
    thread.start()
    log.info("metrics and health on http://%s:%d/metrics", f"[{host}]" if ":" in host else host, server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
