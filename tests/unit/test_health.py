"""What is answered over HTTP, without a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment
from wsgiref.util import setup_testing_defaults

import pytest

from transforms.health import Probe, monitoring_application


def metrics(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"figures"]


def ask(path: str, healthy: Probe = lambda: None, ready: Probe = lambda: None) -> tuple[str, bytes]:
    environ: WSGIEnvironment = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    answers: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        answers.append(status)

    body = b"".join(monitoring_application(metrics, healthy, ready)(environ, start_response))
    return answers[0], body


def test_each_path_has_its_answer() -> None:
    assert ask("/metrics") == ("200 OK", b"figures")
    assert ask("/healthz") == ("200 OK", b"ok\n")
    assert ask("/readyz") == ("200 OK", b"ok\n")
    assert ask("/metricsz")[0] == "404 Not Found"


@pytest.mark.parametrize(("path", "probe"), [("/healthz", "healthy"), ("/readyz", "ready")])
def test_a_probe_that_fails_says_why_in_one_line(path: str, probe: str) -> None:
    status, body = ask(path, **{probe: lambda: "reconnecting: Redis does\nnot answer"})
    assert (status, body) == ("503 Service Unavailable", b"reconnecting: Redis does not answer\n")


def test_the_probes_do_not_answer_for_each_other() -> None:
    assert ask("/healthz", ready=lambda: "no")[0] == "200 OK"
    assert ask("/readyz", healthy=lambda: "no")[0] == "200 OK"
