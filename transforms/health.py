"""What a command answers over HTTP: `/metrics`, `/healthz` and `/readyz`. A WSGI application and no server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Probe = Callable[[], str | None]
"""Why not, in one line; None: all is well."""


def monitoring_application(metrics: WSGIApplication, healthy: Probe, ready: Probe) -> WSGIApplication:
    """Answers the three paths: `metrics` the first, the probes with 200 or with 503 and the reason."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match environ.get("PATH_INFO", ""):
            case "/metrics":
                return metrics(environ, start_response)
            case "/healthz":
                return _answer(start_response, healthy())
            case "/readyz":
                return _answer(start_response, ready())
        return _text(start_response, "404 Not Found", "there are /metrics, /healthz and /readyz")

    return application


def _answer(start_response: StartResponse, reason: str | None) -> Iterable[bytes]:
    if reason is None:
        return _text(start_response, "200 OK", "ok")
    return _text(start_response, "503 Service Unavailable", " ".join(reason.split()))


def _text(start_response: StartResponse, status: str, line: str) -> Iterable[bytes]:
    body = f"{line}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


def overdue_reason(overdue: dict[str, float]) -> str | None:
    """What `/healthz` says of loops that should have been heard of, and for how many seconds."""
    if not overdue:
        return None
    return ", ".join(f"the {loop} has been silent for {seconds:.0f} s too long" for loop, seconds in overdue.items())
