"""A web server that dies between a payment and its answer. Lives here: the servers, the client that asks again, the same play.

The listening sockets are ours, so that a client is never refused while one server follows another. The victim is a forked
`marketplace.server`, armed; the one beside it is not, and answers the client's repetitions.
"""

import contextlib
import http.client
import json
import signal
import socket
import threading
import time
from random import Random
from typing import Any, Final

from escrow import money
from marketplace.management.crashtest.ground import Ground, Tenant, agent_of
from marketplace.management.crashtest.judge import Judge, Verdict
from marketplace.management.crashtest.kills import MOST_MICROS, NotReached

POINT: Final = "send.committed"
ANSWER_SECONDS: Final = 30.0
CREATED: Final = 201
FAILURE: Final = 500
"""From here on the server says that it failed: the key is asked again."""
REPEATED: Final = 3
"""Once, and twice more at once."""


class Web:
    """The web servers of one lane, and their client."""

    def __init__(self, ground: Ground, judge: Judge) -> None:
        """Listen; the steady server is forked at once."""
        self.ground, self.judge = ground, judge
        self._doomed, self._open = _listening(), _listening()
        self._steady = ground.crew.serve(self._open)
        self.recovery = 0.0

    def close(self) -> None:
        """End the steady server, and close what it listened to."""
        self.ground.crew.kill(self._steady)
        self._doomed.close()
        self._open.close()

    def run(self, point: str, seed: int) -> Verdict:
        """Kill a server once at the point, repeat the request, twice more at once, and judge. Raises NotReached."""
        key = f"{point}/{seed}"
        at = Random(key)  # noqa: S311 - draws that can be drawn again
        tenant, seller, micros = at.choice(self.ground.tenants), at.randrange(3), at.randint(1, MOST_MICROS)
        victim = self.ground.crew.serve(self._doomed, point=point)
        answered = self.ask(tenant, seller, micros, key, port=self._doomed.getsockname()[1])
        began = time.monotonic()
        ended = self.ground.crew.kill(victim) if answered else self.ground.crew.reap(victim)
        if answered or ended != signal.SIGKILL:
            raise NotReached(f"the server answered {answered} and ended with {ended}")
        answers = [self.ask(tenant, seller, micros, key), *self._at_once(tenant, seller, micros, key)]
        verdict = Verdict()
        for status, said in filter(None, answers):
            if status == CREATED:
                self.ground.note(tenant, seller, micros, key, said["id"])
            else:
                verdict.unexplained.append(f"key {key} was answered {status}: {said}")
        if (got := sum(answer is not None for answer in answers)) != REPEATED:
            verdict.unexplained.append(f"key {key} was answered {got} times, and asked {REPEATED} times")
        healed = self.ground.heal()
        self.recovery = time.monotonic() - began
        found = self.judge.judge({tenant.pool.pk})
        found.unexplained += verdict.unexplained + ([] if healed else ["it did not come to rest"])
        return found

    def _at_once(self, *asked: Any) -> list[tuple[int, Any] | None]:
        answers: list[tuple[int, Any] | None] = []
        threads = [threading.Thread(target=lambda: answers.append(self.ask(*asked))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def ask(
        self, tenant: Tenant, seller: int, micros: int, key: str, *, port: int | None = None
    ) -> tuple[int, Any] | None:
        """Send the request once; return the answer's status and document, None when the connection ended before its end."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", port or self._open.getsockname()[1], timeout=ANSWER_SECONDS
        )
        asked = {"session_id": str(tenant.session.pk), "to": agent_of(seller), "amount": money.render(micros)}
        headers = {
            "Authorization": f"Bearer {tenant.secret}",
            "Idempotency-Key": key,
            "Content-Type": "application/json",
        }
        with contextlib.closing(connection):
            try:
                connection.request("POST", "/v1/payments", json.dumps(asked), headers)
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                return None
        try:
            return answer.status, json.loads(body)
        except ValueError:  # an answer too, and nothing but a failure may be answered like this
            return answer.status, {"page": body[:200].decode(errors="replace")}


def _listening() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen(64)
    return made
