"""When a request is sent again, and after how long. Pure decisions: no clock, no waiting, no network."""

from dataclasses import dataclass

from agentmarket.wire import Reply, Request, Silence, problem

#: the answers that say "not now": a limit, or something between us and the market that is restarting
TRANSIENT = frozenset({429, 502, 503, 504})


#: an answer that asks for no wait at all is not asked again for ever
MOST_OPENING = 60


@dataclass(frozen=True)
class Retries:
    """Bounds on repeating. `attempts` counts the first one too."""

    attempts: int = 4
    first_delay: float = 0.2
    longest_delay: float = 5.0
    #: an answer that asks for a longer wait than this is given to the caller instead
    longest_wait: float = 30.0
    #: seconds to wait in all for a pool that is being opened on the chain; those attempts count for nothing else
    longest_opening: float = 30.0

    def delay(self, attempt: int, *, asked: float | None, chance: float) -> float | None:
        """Seconds to wait after attempt number `attempt` (from 1), or None to stop.

        `asked` is the answer's Retry-After, never undercut; `chance` in [0, 1) spreads many clients out.
        """
        if attempt >= self.attempts or (asked is not None and asked > self.longest_wait):
            return None
        backoff: float = min(self.longest_delay, self.first_delay * 2 ** (attempt - 1))
        if asked is None:
            return backoff * (0.5 + chance / 2)
        return asked + backoff * chance / 2

    def opening_delay(self, attempt: int, *, waited: float, asked: float | None) -> float | None:
        """Seconds to wait for a pool that is being opened, the `attempt`th time, or None to stop."""
        delay = 1.0 if asked is None else asked
        return None if waited + delay > self.longest_opening or attempt > MOST_OPENING else delay


def may_repeat(request: Request, outcome: Reply | Silence) -> bool:
    """If sending this request again can do no harm, and may do good."""
    if isinstance(outcome, Silence):
        return request.repeatable or not outcome.sent
    if outcome.status not in TRANSIENT or problem(outcome).get("retryable") is False:
        return False
    return request.repeatable or outcome.status == 429
