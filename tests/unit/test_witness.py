"""What was published is confirmed when a look that began late enough has found it, and as safe as is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from cdc.durability import Assurance
from cdc.progress import Progress
from cdc.transport import Attestation, Attestor, ServerIdentity
from cdc.witness import RedisReplaced, Witness
from tests.processes import wait_until
from transforms.position import LSN
from transforms.pulse import Pulse

SERVER = ServerIdentity("run", "history")
LIFE = "one@1"
ASKING = Assurance(0.0, ("WAIT", "2", "100"), 2, "{} of 2 replicas", "Start them.")


@dataclass
class Server:
    """Answers as told, when told."""

    answer: Attestation = field(default=Attestation(SERVER, LIFE, LSN(0), 0))
    asked: list[Sequence[str] | None] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None

    def attest(self, question: Sequence[str] | None) -> Attestation:
        self.asked.append(question)
        self.before_answer()
        return self.answer

    def says(self, **fields: object) -> None:
        self.answer = replace(self.answer, **fields)  # type: ignore[arg-type]


@contextmanager
def running(witness: Witness) -> Iterator[list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            witness.run(lambda: None)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield failures
    finally:
        witness.end()
        thread.join()


def witness_of(server: Server, assurance: Assurance) -> Witness:
    return Witness(cast(Attestor, server), assurance, LIFE, SERVER, Pulse())


def test_what_is_stored_is_confirmed_by_a_look_that_begins_when_the_delay_is_over() -> None:
    server, delay = Server(Attestation(SERVER, LIFE, LSN(20), 0)), 0.3
    witness, progress = witness_of(server, Assurance(delay)), Progress(LSN(10), delay)
    with running(witness):
        stored_at = witness.stored(LSN(20))
        progress.stored(LSN(20), stored_at)
        wait_until("the confirm", lambda: progress.confirmable(witness.vouched_at) == LSN(20))
    assert time.monotonic() - stored_at >= delay
    assert set(server.asked) == {None}


def test_what_is_stored_after_a_look_began_is_not_vouched_for_by_it() -> None:
    server, progress = Server(Attestation(SERVER, LIFE, LSN(30), 2)), Progress(LSN(10), 0.0)
    witness, permits = witness_of(server, ASKING), threading.Semaphore(0)

    def wait_for_a_permit() -> None:
        if server.asked[-1] is not None:
            permits.acquire()

    server.before_answer = wait_for_a_permit
    with running(witness):
        progress.stored(LSN(20), witness.stored(LSN(20)))
        wait_until("the first question", lambda: server.asked.count(ASKING.question) == 1)
        progress.stored(LSN(30), witness.stored(LSN(30)))
        permits.release()
        wait_until("the second question", lambda: server.asked.count(ASKING.question) == 2)
        assert progress.confirmable(witness.vouched_at) == LSN(20)
        permits.release()
        wait_until("the second confirm", lambda: progress.confirmable(witness.vouched_at) == LSN(30))


def test_too_few_replicas_confirm_nothing_and_it_says_why_until_there_are_enough() -> None:
    server, progress = Server(Attestation(SERVER, LIFE, LSN(20), 1)), Progress(LSN(10), 0.0)
    witness = witness_of(server, ASKING)
    with running(witness) as failures:
        progress.stored(LSN(20), witness.stored(LSN(20)))
        wait_until("a second try", lambda: len(server.asked) > 1)
        hindered = witness.hindrance
        assert hindered == ("1 of 2 replicas", "Start them.")
        assert progress.confirmable(witness.vouched_at) == LSN(10)
        server.says(copies=2)
        wait_until("the confirm", lambda: progress.confirmable(witness.vouched_at) == LSN(20))
        assert failures == []
    assert [hindered is None, witness.hindrance is None] == [False, True]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"identity": ServerIdentity("other", "history")}, "another process than before"),
        ({"identity": ServerIdentity("run", "other")}, "another history than before"),
        ({"life": "two@1"}, "other streams of this pipeline"),
        ({"published": LSN(19)}, "says 0/13 was published, and 0/14 was"),
    ],
)
def test_another_server_or_an_older_state_ends_the_session_and_confirms_nothing(
    answer: dict[str, object], words: str
) -> None:
    server, progress = Server(Attestation(SERVER, LIFE, LSN(20), 0)), Progress(LSN(10), 0.0)
    server.says(**answer)
    witness = witness_of(server, Assurance(0.0))
    with running(witness) as failures:
        progress.stored(LSN(20), witness.stored(LSN(20)))
        wait_until("it to notice", lambda: failures)
    (failure,) = failures
    assert isinstance(failure, RedisReplaced)
    assert failure.retryable
    assert words in str(failure)
    assert progress.confirmable(witness.vouched_at) == LSN(10)


def test_it_looks_who_answers_though_nothing_is_published() -> None:
    server = Server()
    with running(witness_of(server, ASKING)) as failures:
        wait_until("a look", lambda: server.asked)
        server.says(identity=ServerIdentity("other", "other"))
        wait_until("it to notice", lambda: failures)
    assert set(server.asked) == {None}
