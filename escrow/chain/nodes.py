"""Several nodes of one chain: which is asked, which is left alone for a while, and when two must say the same.

Lives here: transport through web3's HTTP provider with our own session (a timeout on every request, no proxies or
credentials from the environment, no redirects, no retries), the health of each node, and the order they are asked in.
Not here: what a question is and what its answer means (client.py, answers.py).

A node is known by its number, from 1 in the order of the setting: its URL often holds a secret, and is in no error and
no log line.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from escrow.chain.answers import error_of, integer, shaped
from escrow.chain.errors import (
    ChainDisagreement,
    ChainError,
    ChainRefused,
    ChainReverted,
    ChainUnavailable,
    ChainUnconfirmed,
)

log = logging.getLogger(__name__)
for _name in ("urllib3.connectionpool", "web3.providers.HTTPProvider"):
    logging.getLogger(_name).setLevel(logging.ERROR)  # what they tell below this names the URL

T = TypeVar("T")

FIRST_REST_SECONDS: Final = 0.5
LONGEST_REST_SECONDS: Final = 30.0
"""A node that failed is left alone twice as long each time, and this long at most: it is missed no longer once it is back."""
CONFIRM_REST_SECONDS: Final = 5.0
"""Where every node counts, one that failed is asked again after this at the latest: a sweep waits for it only once."""
SURVEY_SECONDS: Final = 15.0
"""How often the nodes' heads are compared: one short request to each."""
MAX_LAG_BLOCKS: Final = 10
"""Behind the foremost node. Nodes of one provider differ by a few blocks at any moment; 10 are 20 seconds on Base."""
CONNECTIONS: Final = 32
"""Kept open to each node: more than a worker has threads."""
SECRET_LENGTH: Final = 8
"""A part of a URL at least this long may be a key; shorter ones are `v2` or `rpc`, and may be part of a word."""


class Node:
    """One node and how it has behaved; its fields are read and written under the lock of `Nodes`."""

    def __init__(self, number: int, url: str, timeout: float) -> None:
        session = requests.Session()
        session.trust_env = False
        session.max_redirects = 0
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
        self.number = number
        self.failures = 0
        self.resting_until = 0.0
        self.failed_at = -math.inf
        self.last_failure = ""
        self.lagging = False
        self.on_our_chain = False
        self._secrets = _secrets(url)
        self._provider = HTTPProvider(
            url, request_kwargs={"timeout": timeout}, session=session, exception_retry_configuration=None
        )

    def request(self, method: str, params: Sequence[Any] = ()) -> Any:
        """One JSON-RPC call; raises ChainUnavailable, ChainReverted or ChainRefused."""
        try:
            response: Any = self._provider.make_request(RPCEndpoint(method), list(params))
        except (requests.RequestException, OSError, ValueError) as error:
            # The text of such an error may hold the URL, and the URL a secret: only its kind is told.
            raise ChainUnavailable(f"{method}: {type(error).__name__}") from None
        if not isinstance(response, Mapping):
            raise ChainUnavailable(f"{method}: the answer is no JSON object")
        error_object = response.get("error")
        if error_object is not None:
            raise error_of(method, self._without_secrets(error_object))
        if "result" not in response:
            raise ChainUnavailable(f"{method}: the answer has neither result nor error")
        return response["result"]

    def _without_secrets(self, error: Any) -> Any:
        """Providers like to repeat the key that they refuse."""
        if not isinstance(error, Mapping):
            return self._hidden(str(error))
        return {**error, "message": self._hidden(str(error.get("message", "")))}

    def _hidden(self, text: str) -> str:
        for part in self._secrets:
            text = text.replace(part, "…")
        return text


def _secrets(url: str) -> list[str]:
    """The parts of a URL that may be a key or name the host, the longest first. No plain word: a node's words decide."""
    parts = urlsplit(url)
    pieces = [*parts.path.split("/"), *parts.query.replace("=", "&").split("&"), parts.password or ""]
    host = parts.hostname or ""
    named = {url, parts.netloc, host if "." in host else url}
    return sorted({*(piece for piece in pieces if len(piece) >= SECRET_LENGTH), *named}, key=len, reverse=True)


class Nodes:
    """The nodes that `urls` names, separated by commas, in the order of preference. Safe to share by threads.

    With `chain_id`, a node that serves another chain is as good as one that does not answer.
    """

    def __init__(self, urls: str, timeout: float, *, chain_id: int | None, clock: Callable[[], float]) -> None:
        named = list(dict.fromkeys(url.strip() for url in urls.split(",") if url.strip()))
        if not named:
            raise ValueError("RPC_URL names no node")
        self.all = [Node(number, url, timeout) for number, url in enumerate(named, start=1)]
        self.chain_id = chain_id
        self._clock = clock
        self._lock = threading.Lock()
        self._next_survey = 0.0

    def ask(self, question: Callable[[Node], T]) -> T:
        """The first answer, from the best node that gives one. A refusal and a revert are answers."""
        return self.hear(question, 1)[0]

    def hear(self, question: Callable[[Node], T], many: int) -> list[T]:
        """The first answers, of as many nodes, from the best that give one; fewer where no more do, and one at least."""
        answers: list[T] = []
        failures = []
        for node in self.order():
            if answers and self._just_failed(node) is not None:
                continue
            try:
                answers.append(self.put(node, question))
            except ChainUnavailable as error:
                failures.append(str(error))
            except ChainError:
                if not answers:
                    raise
            if len(answers) == many:
                return answers
        if not answers:
            raise ChainUnavailable("; ".join(failures))
        return answers

    def agree(self, what: str, question: Callable[[Node], T], essence: Callable[[T], Hashable]) -> T:
        """The answer that two nodes give whose essence is the same; where there is one node, its answer.

        Raises ChainUnavailable when none answers, ChainUnconfirmed when one does, ChainDisagreement when no two say the
        same, and what a node refused with when the others do not outvote it.
        """
        if len(self.all) == 1:
            return self.ask(question)
        answers: dict[Hashable, int] = {}
        failures, refusal = [], None
        for node in self.order():
            if (failure := self._just_failed(node)) is not None:
                failures.append(failure)
                continue
            try:
                answer = self.put(node, question)
            except ChainUnavailable as error:
                failures.append(str(error))
            except (ChainRefused, ChainReverted) as error:
                refusal = error
            else:
                if essence(answer) in answers:
                    return answer
                answers[essence(answer)] = node.number
        if refusal is not None:
            raise refusal
        if not answers:
            raise ChainUnavailable("; ".join(failures))
        if len(answers) == 1:
            raise ChainUnconfirmed(f"{what}: two nodes must agree, and one answered ({'; '.join(failures)})")
        told = " and ".join(str(number) for number in answers.values())
        log.error("Nodes %s disagree about %s", told, what)
        raise ChainDisagreement(f"{what}: nodes {told} disagree")

    def order(self) -> list[Node]:
        """Every node, in the order to ask them in: well, behind the others, and at rest."""
        if len(self.all) > 1:
            self._survey()
        now = self._clock()
        with self._lock:
            resting = sorted((node for node in self.all if node.resting_until > now), key=lambda n: n.resting_until)
            return sorted((n for n in self.all if n not in resting), key=lambda n: n.lagging) + resting

    def put(self, node: Node, question: Callable[[Node], T]) -> T:
        """Ask one node, and remember how it went."""
        with self._lock:
            if node.failures:  # whoever comes meanwhile goes round it: one at a time tries whether it is back
                node.resting_until = self._clock() + _rest(node.failures)
        try:
            self._check_chain(node)
            answer = question(node)
        except ChainUnavailable as error:
            self._failed(node, error)
            raise ChainUnavailable(f"node {node.number}: {error}") from None
        except ChainError:
            self._answered(node)
            raise
        self._answered(node)
        return answer

    def _check_chain(self, node: Node) -> None:
        expected = self.chain_id
        if expected is None or node.on_our_chain:
            return
        found = shaped("eth_chainId", integer, node.request("eth_chainId"))
        if found != expected:
            raise ChainUnavailable(f"it serves chain {found}, not {expected}")
        node.on_our_chain = True

    def _just_failed(self, node: Node) -> str | None:
        with self._lock:
            if node.failures and self._clock() < min(node.failed_at + CONFIRM_REST_SECONDS, node.resting_until):
                return f"node {node.number}: {node.last_failure}, a moment ago"
        return None

    def _failed(self, node: Node, error: ChainUnavailable) -> None:
        with self._lock:
            node.failures += 1
            node.failed_at, node.last_failure = self._clock(), str(error)
            first, node.resting_until = node.failures == 1, node.failed_at + _rest(node.failures)
        if first:
            log.warning("Node %s of %s does not answer: %s", node.number, len(self.all), error)

    def _answered(self, node: Node) -> None:
        with self._lock:
            failures, node.failures, node.resting_until = node.failures, 0, 0.0
        if failures:
            log.info("Node %s of %s answers again, after %s failures", node.number, len(self.all), failures)

    def _survey(self) -> None:
        """Compare the heads, now and then: a node that fell behind answers quickly, and with yesterday's truth."""
        now = self._clock()
        with self._lock:
            if now < self._next_survey:
                return
            self._next_survey = now + SURVEY_SECONDS
            due = [node for node in self.all if node.resting_until <= now]
        heads: dict[Node, int] = {}
        for node in due:
            with suppress(ChainError):
                heads[node] = self.put(node, _head)
        foremost = max(heads.values(), default=0)
        for node, head in heads.items():
            behind = foremost - head
            if (lagging := behind > MAX_LAG_BLOCKS) and not node.lagging:
                log.warning("Node %s of %s is %s blocks behind", node.number, len(self.all), behind)
            node.lagging = lagging


def _head(node: Node) -> int:
    return shaped("eth_blockNumber", integer, node.request("eth_blockNumber"))


def _rest(failures: int) -> float:
    return min(FIRST_REST_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_REST_SECONDS)
