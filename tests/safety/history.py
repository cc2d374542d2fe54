"""What a family of sessions spent, judged from its transfers alone: no counter, no running sum, no code that decided it.

A second reading of the rules, written without `escrow.policy`, `escrow.recipients`, `escrow.windows` and the database's
functions. It reads each transfer once, soon after it was made, and adds up all those before it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from escrow.models import Account, Hold, Payment, Session, Transfer
from marketplace.models import Agent

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
SPENT = ("payment", "hold")
GIVEN = ("session_open", "session_top_up")
SPANS = {
    "max_per_hour": timedelta(hours=1),
    "max_per_day": timedelta(days=1),
    "max_tx_per_minute": timedelta(minutes=1),
}
BACK = ("session_close", "release", "refund", "ruling")


class Violation(AssertionError):
    """Money moved that should not have."""


@dataclass(frozen=True)
class Step:
    """A transfer, when it was made (`at`: on the clock of the walls; `lived`: with the time that was let pass added)."""

    id: int
    sender: int
    receiver: int
    micros: int
    reason: str
    ref: str
    at: datetime
    lived: datetime


@dataclass
class Yes:
    """A person's yes to one request."""

    session: str
    to: str
    micros: int
    until: datetime
    used: bool = False


@dataclass
class History:
    """All transfers in their order, each judged against those before it."""

    untouchable: frozenset[int] = frozenset()
    """Accounts that no transfer may name."""
    passed: timedelta = timedelta()
    steps: list[Step] = field(default_factory=list)
    approved: list[Yes] = field(default_factory=list)
    judged: int = 0
    """How many of them were payments or holds."""
    _out: dict[int, list[Step]] = field(default_factory=lambda: defaultdict(list))
    _in: dict[int, list[Step]] = field(default_factory=lambda: defaultdict(list))
    _spent_in: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    """What a session and those inside it have paid and set aside."""
    _said: dict[str, list[tuple[datetime | None, dict[str, Any]]]] = field(default_factory=lambda: defaultdict(list))
    """The policies of a session, and until when each was in force."""
    _accounts: dict[int, Account] = field(default_factory=dict)
    _parents: dict[str, str | None] = field(default_factory=dict)
    _held_for: dict[str, Any] = field(default_factory=dict)
    _parties: dict[str, Any] = field(default_factory=dict)

    def read(self) -> list[Step]:
        """Return the transfers since the last time."""
        last = self.steps[-1].id if self.steps else 0
        names = ("id", "sender_id", "receiver_id", "amount_micros", "reason", "ref", "created_at")
        rows = Transfer.objects.filter(pk__gt=last).order_by("pk").values_list(*names)
        return [Step(*row, row[-1] + self.passed) for row in rows]

    def accept(self) -> None:
        """Take what has happened as it is: it was not the judged party's doing."""
        for step in self.read():
            self._keep(step)

    def judge(self, policies: Mapping[str, Mapping[str, Any]]) -> list[Step]:
        """Judge what has happened since the last time under the policies that were in force; raise Violation."""
        self._note(policies)
        new = self.read()
        for step in new:
            self._judge(step, policies)
            self._keep(step)
        return new

    def _keep(self, step: Step) -> None:
        self.steps.append(step)
        self._out[step.sender].append(step)
        self._in[step.receiver].append(step)
        if step.reason in SPENT:
            for session in self.family(_id(self.account(step.sender))):
                self._spent_in[session].append(step)

    def check_unchanged(self) -> None:
        """Raise Violation when what was read is not what the books hold now."""
        kept = [(step.id, step.sender, step.receiver, step.micros, step.reason, step.ref) for step in self.steps]
        names = ("id", "sender_id", "receiver_id", "amount_micros", "reason", "ref")
        if kept != list(Transfer.objects.order_by("pk").values_list(*names)):
            raise Violation("history was rewritten")

    def family(self, session: str) -> Iterator[str]:
        """Return a session and those above it."""
        up: str | None = session
        while up is not None:
            yield up
            if up not in self._parents:
                parent = Session.objects.values_list("parent_id", flat=True).get(pk=up)
                self._parents[up] = str(parent) if parent else None
            up = self._parents[up]

    # --- one transfer ---------------------------------------------------------------------------------------------

    def _judge(self, step: Step, policies: Mapping[str, Mapping[str, Any]]) -> None:
        if {step.sender, step.receiver} & self.untouchable:
            raise Violation(f"a bystander's money moved: {step}")
        sender, receiver = self.account(step.sender), self.account(step.receiver)
        if step.reason in SPENT:
            self._judge_spending(step, sender, receiver, policies)
        elif step.reason in GIVEN:
            self._judge_gift(step, sender, receiver, policies)
        elif step.reason == "capture":
            hold = self._hold_of(sender)
            if (receiver.kind, receiver.party_id, receiver.pool_id) != ("payable", hold.party_id, sender.pool_id):
                raise Violation(f"a hold was paid to another: {step}")
        elif step.reason == "session_close":
            ways = list(self.family(_id(sender)))[1:]
            if _id(receiver) not in ways:
                raise Violation(f"a session was closed, and its money did not go up: {step}")
        elif step.reason == "release":
            ways = list(self.family(str(self._hold_of(sender).session_id)))
            if _id(receiver) not in ways:
                raise Violation(f"a hold's money did not go back to its session: {step}")
        elif step.reason != "dispute":
            raise Violation(f"an agent has no business with this: {step}")

    def _judge_gift(self, step: Step, sender: Account, receiver: Account, policies: Mapping[str, Any]) -> None:
        if sender.kind != "session" or list(self.family(_id(receiver)))[1:2] != [_id(sender)]:
            raise Violation(f"money was given to a session that is not inside its giver: {step}")
        self._judge_total(step, policies[_id(sender)])

    def _judge_spending(self, step: Step, sender: Account, receiver: Account, policies: Mapping[str, Any]) -> None:
        self.judged += 1
        if sender.kind != "session":
            raise Violation(f"it was not a session that spent: {step}")
        to, capability, party = self._meant(step, receiver)
        if party != self.party_of(to):
            raise Violation(f"{to} was meant, and another party was paid: {step}")
        own = policies[_id(sender)]
        self._judge_total(step, own)
        self._judge_spans(step, self._spent_by(step.sender), {rule: own.get(rule) for rule in SPANS})
        for session in self.family(_id(sender)):
            self._judge_spans(step, self._spent_in[session], self._most_of(session, step))
        for session in self.family(_id(sender)):
            self._judge_alone(step, policies[session], to, capability)
            limit = micros(policies[session].get("new_recipient_max"))
            if limit is not None and step.micros > limit and self._is_new(sender.pool_id, party):
                raise Violation(f"new_recipient_max {limit}: {step}")
        above = [micros(policies[one].get("approval_above")) for one in self.family(_id(sender))]
        if any(limit is not None and step.micros > limit for limit in above):
            self._use_approval(step, _id(sender), to)

    def _judge_total(self, step: Step, policy: Mapping[str, Any]) -> None:
        """Everything that leaves a session counts: what is paid, set aside and given to those inside it."""
        taken = self._in[step.sender]
        back = sum(one.micros for one in taken if one.reason in BACK)
        spent = sum(one.micros for one in self._out[step.sender]) - back
        limit = micros(policy.get("max_total"))
        if limit is not None and spent + step.micros > limit:
            raise Violation(f"max_total {limit}: {spent} and then {step}")
        given = sum(one.micros for one in taken if one.reason in GIVEN)
        if spent + step.micros > given:
            raise Violation(f"{given} was given, {spent} is gone, and then {step}")

    def _judge_spans(self, step: Step, before: list[Step], limits: Mapping[str, Any]) -> None:
        """What is paid and set aside in a span that ends with this step: of one session, or of one and those inside it."""
        for rule, span in SPANS.items():
            within = [one.micros for one in before if one.lived > step.lived - span]
            limit, spent = limits[rule], sum(within) + step.micros
            if rule == "max_tx_per_minute":
                spent = len(within) + 1
            else:
                limit = micros(limit)
            if limit is not None and spent > limit:
                raise Violation(f"{rule} {limit}: {spent} with {step}")

    def _most_of(self, session: str, step: Step) -> dict[str, Any]:
        """Return the widest limits over time that were in force in the span: what was spent under them was spent rightly."""
        found: dict[str, Any] = {}
        for rule, span in SPANS.items():
            said = [policy.get(rule) for end, policy in self._said[session] if end is None or end > step.lived - span]
            found[rule] = None if None in said else max(said, key=lambda limit: micros(str(limit)) or 0)
        return found

    def _note(self, policies: Mapping[str, Mapping[str, Any]]) -> None:
        now = datetime.now(UTC) + self.passed
        for session, policy in policies.items():
            said = self._said[session]
            if not said or said[-1][1] != policy:
                if said:
                    said[-1] = (now, said[-1][1])
                said.append((None, dict(policy)))

    def _judge_alone(self, step: Step, policy: Mapping[str, Any], to: str, capability: str) -> None:
        limit = micros(policy.get("max_per_tx"))
        if limit is not None and step.micros > limit:
            raise Violation(f"max_per_tx {limit}: {step}")
        if any(_means(name, to) for name in policy.get("denied_recipients", [])):
            raise Violation(f"denied recipient {to}: {step}")
        allowed = policy.get("allowed_recipients", [])
        if allowed and not any(_means(name, to) for name in allowed):
            raise Violation(f"recipient {to} is not allowed: {step}")
        listed = policy.get("allowed_capabilities", [])
        if listed and (capability not in listed or capability not in self._capabilities(to)):
            raise Violation(f"capability {capability!r}: {step}")
        windows = policy.get("windows", [])
        if windows and not any(_is_open(window, step.at) for window in windows):
            raise Violation(f"windows: {step}")
        end = policy.get("expires_at")
        if end is not None and step.at >= datetime.fromisoformat(end):
            raise Violation(f"expires_at {end}: {step}")

    def _use_approval(self, step: Step, session: str, to: str) -> None:
        for yes in self.approved:
            asked = (yes.session, yes.to, yes.micros)
            if not yes.used and asked == (session, to, step.micros) and step.lived < yes.until:
                yes.used = True
                return
        raise Violation(f"no person approved it: {step}")

    # --- what it was for ------------------------------------------------------------------------------------------

    def _meant(self, step: Step, receiver: Account) -> tuple[str, str, Any]:
        if step.reason == "payment":
            payment = Payment.objects.get(pk=step.ref)
            said = (payment.amount_micros, str(payment.session_id), "payable", payment.party_id)
            is_so = (step.micros, _id(self.account(step.sender)), receiver.kind, receiver.party_id)
            if said != is_so:
                raise Violation(f"the payment says {said}, the transfer {is_so}")
            return payment.to, payment.capability, receiver.party_id
        hold = Hold.objects.get(pk=step.ref)
        if (hold.account_id, str(hold.session_id)) != (receiver.pk, _id(self.account(step.sender))):
            raise Violation(f"the hold is another's: {step}")
        self._held_for[hold.account_id] = hold
        return hold.to, hold.capability, hold.party_id

    def _hold_of(self, account: Account) -> Hold:
        if account.pk not in self._held_for:
            self._held_for[account.pk] = Hold.objects.get(account=account)
        return self._held_for[account.pk]

    def _spent_by(self, account: int) -> list[Step]:
        return [one for one in self._out[account] if one.reason in SPENT]

    def _is_new(self, pool_id: Any, party_id: Any) -> bool:
        account = f"payable:{pool_id}:{party_id}"
        return not any(taken and self.account(number).code == account for number, taken in self._in.items())

    def account(self, number: int) -> Account:
        """Return an account; its sums are not looked at."""
        if number not in self._accounts:
            self._accounts[number] = Account.objects.get(pk=number)
        return self._accounts[number]

    def party_of(self, uri: str) -> Any:
        """Return who is paid for an agent."""
        return self._agent(uri).provider.party_id

    def _capabilities(self, uri: str) -> list[str]:
        return list(self._agent(uri).capabilities)

    def _agent(self, uri: str) -> Agent:
        if uri not in self._parties:
            self._parties[uri] = Agent.objects.select_related("provider").get(uri=uri)
        return self._parties[uri]


def micros(amount: str | None) -> int | None:
    """Return an amount of a policy in micro-USDC."""
    if amount is None:
        return None
    whole, _, rest = amount.partition(".")
    return int(whole) * 1_000_000 + int(rest.ljust(6, "0"))


def _id(account: Account) -> str:
    return account.code.partition(":")[2]


def _means(pattern: str, uri: str) -> bool:
    name, host = pattern.removeprefix("agent://").split("."), uri.removeprefix("agent://").split(".")
    if name[0] == "*":
        return len(host) >= len(name) and host[1 - len(name) :] == name[1:]
    return host == name


def _is_open(window: Mapping[str, Any], at: datetime) -> bool:
    local = at.astimezone(UTC).astimezone(ZoneInfo(window["zone"]))
    return DAYS[local.weekday()] in window["days"] and window["from"] <= local.strftime("%H:%M") < window["to"]
