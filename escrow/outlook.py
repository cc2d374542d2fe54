"""Outlook: what an operator is told of a row. Lives here: what its state means, what comes next, and what each remedy does.

All of it is read from rows: the web asks no node. The numbers that one must know before acting are `briefing`'s; doing it is
`remedies`'.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from django.conf import settings

from escrow import gas, intents, remedies
from escrow.chain.outcomes import SendOutcome
from escrow.models import Attempt, Batch, ChainAction, ChainCursor, Remedy, Setback, SignerNonce
from escrow.remedies import Subject

Kind = Remedy.Kind
Status = ChainAction.Status

RUNBOOK: Final = "docs/operations/runbook.md"
OUTCOMES: Final[dict[str, str]] = {
    "": "not sent yet",
    SendOutcome.OK: "a node took it",
    SendOutcome.ALREADY_KNOWN: "a node has it already",
    SendOutcome.NONCE_TOO_LOW: "its nonce is used",
    SendOutcome.UNDERPRICED: "its fee is too low",
    SendOutcome.UNFUNDED: "the signer has too little ETH",
    SendOutcome.REFUSED: "nodes can never take it",
    SendOutcome.UNKNOWN: "no answer: nobody knows",
    Attempt.REPLACED: "another at its nonce was mined",
}
"""What became of an attempt, in words."""
DOES: Final = {
    Kind.RETRY: "Plans it again, with a fresh count of tries. Do this when the cause of the refusal is mended.",
    Kind.REBROADCAST: "Sends the bytes that are signed once more, now. It can do no harm.",
    Kind.BUMP: "Signs one replacement with higher fees at the same nonce, past the cap on replacements if need be.",
    Kind.RELEASE: "Uses its nonce up with an empty chain transaction, so that later nonces go on. It then counts as "
    "reverted, unless one of its own chain transactions is mined first.",
    Kind.PARK: "Sets it aside before anything is signed, until a person has it planned again.",
    Kind.CLEAR_SIGNER: "Lets the signer sign again. Only when it is known whose chain transaction used the nonce.",
    Kind.CLEAR_CURSOR: "Lets the indexer read on. It stops again if what stopped it is still so.",
    Kind.TRY_AGAIN: "Has the next sweep try this row again, with a fresh count of failures.",
}


@dataclass(frozen=True)
class Outlook:
    """How a row stands, what that means and what comes next, what took its place, and the runbook's section about it."""

    state: str
    says: str
    after: ChainAction | Batch | None = None
    section: str = ""


def of(subject: Subject, now: datetime) -> Outlook:
    """Return what a row's state means and what happens next."""
    if isinstance(subject, SignerNonce):
        return _of_signer(subject)
    if isinstance(subject, ChainCursor):
        return _of_cursor(subject)
    if isinstance(subject, Setback):
        return _of_setback(subject)
    says, section = _SAYS[Status(subject.status)](subject, now)
    after = successor(subject)
    if after is not None:
        says = f"{says} In its place: {_called(after)}."
    return Outlook(subject.status, says, after, section)


def does(subject: Subject, kind: Kind) -> str:
    """Return what a remedy would do to a row as it is."""
    if isinstance(subject, ChainAction):
        if kind == Kind.RETRY and subject.status == Status.REVERTED:
            return "Plans another in its place, once: its own nonce is used up. Do this when the cause is mended."
        if kind == Kind.RELEASE and remedies.is_left_over(subject):
            return "Ends it. Nothing of it is planned again, and nobody is told: that was done when it was parked."
        if kind == Kind.PARK and subject.kind == ChainAction.Kind.SETTLE:
            return "Ends it before anything is signed. The batches that it carries wait for another, which takes fewer."
        if kind == Kind.PARK and subject.kind in intents.ASKED_ANEW:
            return "Ends it before anything is signed, and tells whoever asked for it that it failed, for good."
    return DOES[kind]


def successor(action: ChainAction) -> ChainAction | Batch | None:
    """Return what took the place of an action that has ended without effect; for a settlement's, of its first batch."""
    if action.status not in (Status.REVERTED, Status.DROPPED, Status.PARKED):
        return None
    if action.kind != ChainAction.Kind.SETTLE:
        return intents.follower(action)
    try:
        first = UUID(action.dedupe_key.split(":")[1])
    except (IndexError, ValueError):
        return None
    batch = Batch.objects.select_related("action").filter(pk=first).first()
    if batch is None or batch.action_id == action.pk:
        return None
    return batch.action or batch


def iso(at: datetime) -> str:
    """Return a moment as ISO 8601 has it, in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def age(since: datetime, now: datetime) -> str:
    """Return how long ago something was, in its largest unit."""
    seconds = max(int((now - since).total_seconds()), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


# --- a chain action, by its status ------------------------------------------------------------------------------------
def _planned(action: ChainAction, now: datetime) -> tuple[str, str]:
    when = f"at {iso(action.next_at)}" if action.next_at > now else "with its next pass"
    end = "it is parked"
    if action.kind in intents.ASKED_ANEW:
        end = "it ends and is told as failed"
    if action.kind == ChainAction.Kind.SETTLE:
        end = "it ends, and its batches go with another"
    most = f"after {settings.RELAY_MAX_ATTEMPTS} refusals, of which it has {action.attempts}, {end}"
    return f"Nothing of it is signed. The relay tries it {when}; {most}.", "GasDear"


def _unmined(action: ChainAction, now: datetime) -> tuple[str, str]:
    last = newest_attempt(action)
    lost = last is not None and last.outcome == SendOutcome.UNKNOWN
    says = "Its bytes are signed, and are sent again, the same ones, until a node has them."
    if action.status == Status.BROADCAST:
        says = (
            "It waits for a block. By itself the relay pays more after a while, "
            f"{gas.MAX_REPLACEMENTS} times and up to {settings.GAS_PRICE_CAP_GWEI} gwei; more is a person's decision."
        )
    if last is not None and last.cancels:
        says = "It was released: unless it is mined first, its nonce is used up, and it counts as reverted then."
    asked = [word for key, word in _ASKED.items() if action.params.get(key)]
    if asked and not (last is not None and last.cancels):
        says += f" The relay has been asked to {' and to '.join(asked)}, with its next pass."
    return says, "ActionUnknown" if lost else "ActionStuck"


_ASKED: Final = {"bump": "pay more", "cancel": "use its nonce up"}


def _standing(action: ChainAction, now: datetime) -> tuple[str, str]:
    return f"It is in block {action.block_number}, and has ended once that block is final. Wait.", "ActionNotFinal"


def _final(action: ChainAction, now: datetime) -> tuple[str, str]:
    return f"It has ended well, in block {action.block_number}. Nothing follows.", ""


def _reverted(action: ChainAction, now: datetime) -> tuple[str, str]:
    says = f"Its nonce is used up, and it did nothing. {_what_follows(action)}"
    if action.kind not in intents.GIVEN_UP:
        says += f" By itself it is planned anew where a sweep still finds its cause, {intents.MAX_TURNS} times in all."
    return says.strip(), "ActionReverted"


def _parked(action: ChainAction, now: datetime) -> tuple[str, str]:
    if remedies.is_left_over(action):
        return f"It only has to end: release it. {_what_follows(action)}", "ActionParked"
    return "It waits for a person: mend what its error names, then retry it. No nonce was used.", "ActionParked"


def _dropped(action: ChainAction, now: datetime) -> tuple[str, str]:
    return f"It has ended, and no nonce was used; its error says why. {_what_follows(action)}".strip(), "ActionParked"


def _what_follows(action: ChainAction) -> str:
    if action.kind in intents.ASKED_ANEW:
        return "Who asked for it was told, and asks anew."
    return "What it carried goes with another." if action.kind == ChainAction.Kind.SETTLE else ""


_SAYS: Final[dict[Status, Callable[[ChainAction, datetime], tuple[str, str]]]] = {
    Status.PLANNED: _planned,
    Status.SIGNED: _unmined,
    Status.BROADCAST: _unmined,
    Status.MINED: _standing,
    Status.SAFE: _standing,
    Status.FINAL: _final,
    Status.REVERTED: _reverted,
    Status.PARKED: _parked,
    Status.DROPPED: _dropped,
}


def newest_attempt(action: ChainAction) -> Attempt | None:
    """Return what was signed last."""
    return action.signed_attempts.order_by("-pk").first()


def _called(after: ChainAction | Batch) -> str:
    if isinstance(after, ChainAction):
        return f"{after}, which is {after.status}"
    waits = f", turned down {after.turns} times" if after.turns else ""
    return f"{after}, which is {after.status} and in no chain action{waits}"


# --- all else ---------------------------------------------------------------------------------------------------------
def _of_signer(signer: SignerNonce) -> Outlook:
    if signer.stopped_reason:
        says = "It signs nothing more, and what is planned for it waits, until a person knows who used the nonce."
        return Outlook("stopped", says, section="SignerStopped")
    return Outlook("running", f"It signs; its next nonce is {signer.next_nonce}.", section="SignerStopped")


def _of_cursor(cursor: ChainCursor) -> Outlook:
    if cursor.stopped_reason:
        says = "Nothing of the chain comes into the ledger until a person has looked at why it stopped."
        return Outlook("stopped", says, section="IndexerStopped")
    return Outlook("running", f"It reads on from block {cursor.block_number}.", section="IndexerBehind")


def _of_setback(setback: Setback) -> Outlook:
    if setback.parked_at is not None:
        says = (
            f"It failed {setback.failures} times, and no sweep tries it until a person says so. The other rows go on."
        )
        return Outlook("set aside", says, section="RowSetAside")
    says = f"It failed {setback.failures} times, and is tried again by itself at {iso(setback.next_at)}."
    return Outlook("put off", says, section="RowPutOff")
