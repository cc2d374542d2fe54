"""`escrow.dispatch`: which signed batches travel together, and what becomes of one that is refused. It needs no chain."""

import logging
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from eth_utils.crypto import keccak

from escrow import crashpoints, dispatch, intents, ledger, receipts
from escrow.chain import wire
from escrow.chain.client import Receipt
from escrow.chain.errors import ChainReverted, ChainUnavailable
from escrow.chain.events import BatchSettled, ItemRejected, LogPlace, PoolEvent
from escrow.chain.wire import Record
from escrow.models import Account, Batch, ChainAction, Pool
from tests.escrow import books
from tests.escrow.books import NOW

pytestmark = pytest.mark.django_db
Kind = ChainAction.Kind
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
_keys = count(1)


@pytest.fixture(autouse=True)
def _one_relayer(settings: Any) -> None:
    settings.RELAYERS, settings.SETTLE_MAX_GROUP = 1, 64


def packed(providers: int, records: int = 0) -> bytes:
    """The bytes of a batch of so many records to so many providers."""
    to = [f"0x{n + 1:040x}" for n in range(providers)]
    return wire.encode_batch(0, [Record(to[n % providers], 1 + n) for n in range(records or providers)])


def opened() -> Pool:
    """A pool for which nothing is under way on chain."""
    of = books.pool()
    ChainAction.objects.filter(pool=of).update(status="final")
    return of


def batch(of: Pool | None = None, **changes: Any) -> Batch:
    """A signed batch of a pool of its own; nothing is in it, since only the bytes are weighed here."""
    of, name = of or opened(), uuid4()
    account = ledger.open_account(Account.Kind.SETTLING, pool=of, subject=name)
    fields: dict[str, Any] = {"packed": packed(1), "deadline": NOW + HOUR, "next_at": NOW, "created_at": NOW}
    fields |= {"root": "0x" + "00" * 32, "signature": b"\1" * 65, "first_seq": next(_keys)} | changes
    return Batch.objects.create(id=name, pool=of, account=account, **fields)


def plan(now: datetime = NOW, limit: int = 100) -> list[list[UUID]]:
    """Dispatch, and return the batches of each new action, in the order in which they are carried."""
    before = set(ChainAction.objects.values_list("pk", flat=True))
    planned = dispatch.dispatch_due(now=now, limit=limit)
    fresh = ChainAction.objects.exclude(pk__in=before).order_by("pk")
    assert {(action.kind, action.status) for action in fresh} <= {("settle", "planned")}
    assert planned == fresh.count()
    return [[one.pk for one in dispatch.carried(action)] for action in fresh]


def carrier(*batches: Batch, **changes: Any) -> ChainAction:
    """An action that carries batches."""
    action = intents.record(Kind.SETTLE, dedupe_key=f"carrier:{next(_keys)}", pool=None)
    Batch.objects.filter(pk__in=[one.pk for one in batches]).update(action=action)
    return action


def stands(one: Batch) -> tuple[Any, ...]:
    """Where a batch stands: its action, how often it was refused, when it goes again, and why."""
    one.refresh_from_db()
    return one.action_id, one.turns, one.next_at, one.reason


# --- what is due --------------------------------------------------------------------------------------------------


def test_only_what_is_signed_and_waits_and_can_land_in_time_is_due() -> None:
    batch(status=Batch.Status.SETTLED)
    batch(status=Batch.Status.VOID)
    batch(next_at=NOW + SECOND)
    batch(deadline=NOW + dispatch.LANDING_TIME)
    taken = batch()
    carrier(taken)
    assert plan() == []
    due = batch(next_at=NOW, deadline=NOW + dispatch.LANDING_TIME + SECOND)
    assert plan() == [[due.pk]]
    assert plan() == []


def test_the_oldest_go_first_when_there_are_too_many() -> None:
    made = [batch(created_at=NOW - n * SECOND) for n in range(3)]
    assert sorted(plan(limit=2)[0]) == sorted([made[1].pk, made[2].pk])
    assert plan(limit=2) == [[made[0].pk]]


def test_what_one_dispatcher_has_no_other_waits_for() -> None:
    batch()
    with CaptureQueriesContext(connection) as queries:
        plan()
    (locking,) = [query["sql"] for query in queries if "FOR NO KEY UPDATE" in query["sql"]]
    assert 'FOR NO KEY UPDATE OF "escrow_batch" SKIP LOCKED' in locking
    assert "LIMIT 100" in locking
    of_pools = [
        query["sql"] for query in queries if query["sql"].startswith("SELECT") and 'FROM "escrow_pool"' in query["sql"]
    ]
    assert of_pools == []  # its pool came with it


def test_an_action_of_one_batch_names_its_pool_and_one_of_several_names_none(settings: Any) -> None:
    settings.RELAYERS = 2
    one, several = pools_of(shard=0, many=1)[0], pools_of(shard=1, many=2)
    alone = batch(one)
    together = [batch(of) for of in several]
    dispatch.dispatch_due(now=NOW, limit=10)
    first, second = ChainAction.objects.filter(kind="settle").order_by("pk")
    assert (first.pool, first.shard, list(first.batches.all())) == (one, 0, [alone])
    assert (second.pool, second.shard, set(second.batches.all())) == (None, 1, set(together))


def test_a_batch_that_goes_again_goes_with_another_action() -> None:
    one = batch()
    dispatch.dispatch_due(now=NOW, limit=10)
    first = ChainAction.objects.get(kind="settle")
    Batch.objects.update(action=None)
    dispatch.dispatch_due(now=NOW, limit=10)
    second = ChainAction.objects.get(kind="settle", batches=one)
    assert second.pk > first.pk
    assert {action.dedupe_key.rpartition(":")[0] for action in (first, second)} == {f"settle:{one.pk}"}


def test_a_crash_can_be_had_after_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(crashpoints, "reach", reached.append)
    dispatch.dispatch_due(now=NOW, limit=10)
    assert reached == ["dispatch.committed"]


# --- groups -------------------------------------------------------------------------------------------------------


def pools_of(*, shard: int, many: int) -> list[Pool]:
    """Pools that one relayer serves."""
    found: list[Pool] = []
    while len(found) < many:
        of = opened()
        found += [of] if intents.shard_of(of) == shard else []
    return found


def test_gas_is_reckoned_by_batch_and_provider_and_record() -> None:
    assert dispatch.gas_of(Batch(packed=packed(1))) == 90_000 + 26_000 + 1_000
    assert dispatch.gas_of(Batch(packed=packed(3, 8))) == 90_000 + 78_000 + 8_000
    assert isinstance(dispatch.gas_of(Batch(packed=packed(1))), int)


def test_batches_of_one_relayer_travel_together_the_dearest_last() -> None:
    dear, cheap, middle = batch(packed=packed(9)), batch(packed=packed(1)), batch(packed=packed(4))
    assert plan() == [[cheap.pk, middle.pk, dear.pk]]


def test_batches_of_different_relayers_never_travel_together(settings: Any) -> None:
    settings.RELAYERS = 2
    first, second = pools_of(shard=0, many=2), pools_of(shard=1, many=2)
    in_turn = [first[0], second[0], first[1], second[1]]
    made = [batch(of, created_at=NOW + n * SECOND).pk for n, of in enumerate(in_turn)]
    assert [sorted(group) for group in plan()] == [sorted([made[0], made[2]]), sorted([made[1], made[3]])]


def test_a_refused_batch_travels_with_its_like_and_with_half_as_many_each_time(settings: Any) -> None:
    settings.SETTLE_MAX_GROUP = 4
    groups = {turns: [batch(turns=turns).pk for _ in range(5)] for turns in (0, 1, 2, 3)}
    planned = plan()
    assert [len(group) for group in planned] == [4, 1, 2, 2, 1, *[1] * 10]
    for turns, sizes in enumerate(((0, 2), (2, 5), (5, 10), (10, 15))):
        assert {pk for group in planned[slice(*sizes)] for pk in group} <= set(groups[turns])


def test_a_group_has_as_much_gas_as_one_more_of_its_dearest_would_need(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        batch()
    one = dispatch.gas_of(Batch(packed=packed(1)))
    monkeypatch.setattr(dispatch, "GROUP_GAS", 4 * one)
    assert [len(group) for group in plan()] == [3, 1]
    Batch.objects.update(action=None)
    monkeypatch.setattr(dispatch, "GROUP_GAS", 4 * one - 1)
    assert [len(group) for group in plan()] == [2, 2]


# --- refusals -----------------------------------------------------------------------------------------------------


class Contract:
    """Answers a call as a contract would that refuses certain batches."""

    def __init__(self, *refused: Batch, error: Exception | None = None) -> None:
        self.refused = [receipts.calldata(one) for one in refused]
        self.error = error or ChainReverted("AlreadySettled", {"seq": 3})
        self.asked: list[tuple[str, bytes, str]] = []

    def call(self, to: str, data: bytes, from_: str | None = None) -> bytes:
        self.asked.append((to, data, str(from_)))
        if data in self.refused:
            raise self.error
        return b""


def test_a_batch_that_the_contract_refuses_leaves_the_action_before_it_is_signed(settings: Any) -> None:
    good, bad = batch(), batch()
    action = carrier(good, bad)
    contract: Any = Contract(bad)
    dispatch.leave_out_refused(action, client=contract, sender="0x" + "5e" * 20, now=NOW)
    assert stands(good) == (action.pk, 0, NOW, "")
    assert stands(bad) == (None, 1, NOW, "AlreadySettled(seq=3)")
    asked = [(settings.ESCROW_ADDRESS, receipts.calldata(one), "0x" + "5e" * 20) for one in dispatch.carried(action)]
    assert set(asked) < set(contract.asked)
    assert len(contract.asked) == 2


def test_a_node_that_does_not_answer_refuses_nothing() -> None:
    one = batch()
    action = carrier(one)
    contract: Any = Contract(one, error=ChainUnavailable("no answer"))
    with pytest.raises(ChainUnavailable):
        dispatch.leave_out_refused(action, client=contract, sender="0x", now=NOW)
    assert stands(one) == (action.pk, 0, NOW, "")


def receipt(*events: PoolEvent) -> Receipt:
    return Receipt("0x", True, 1, "0x", 1, 1, None, events)


PLACE = LogPlace(1, 0, "0x", "0x", "0x")


def key(of: Batch) -> bytes:
    return of.pool.key


def settled(one: Batch, first_seq: int | None = None) -> BatchSettled:
    return BatchSettled(PLACE, key(one), one.first_seq if first_seq is None else first_seq, 1, 1, b"")


def test_what_the_chain_left_out_is_turned_down_with_the_contracts_reason() -> None:
    good, bad, silent, odd, other = (batch() for _ in range(5))
    action = carrier(good, bad, silent, odd, other)
    ended = keccak(text="PoolEnded(uint256,uint256)")[:4] + (7).to_bytes(32, "big") + (9).to_bytes(32, "big")
    rejected = [ItemRejected(PLACE, key(bad), ended), ItemRejected(PLACE, key(odd), b"\xff\xff\xff\xff")]
    told = receipt(settled(good), *rejected, settled(other, other.first_seq + 1))
    dispatch.landed(action, told, now=NOW)
    assert stands(good) == (action.pk, 0, NOW, "")
    assert stands(bad) == (None, 1, NOW, "PoolEnded(endsAt=7, nowAt=9)")
    assert stands(silent) == (None, 1, NOW, "The contract left it out.")
    assert stands(odd) == (None, 1, NOW, "The contract left it out.")
    assert stands(other) == (None, 1, NOW, "The contract left it out.")  # another batch of its pool has landed


def test_a_batch_that_has_landed_meanwhile_is_not_turned_down() -> None:
    gone = batch()
    action = carrier(gone)
    Batch.objects.update(status=Batch.Status.SETTLED)
    assert dispatch.carried(action) == []
    dispatch.landed(action, receipt(), now=NOW)
    dispatch.release(action, "x", now=NOW)
    dispatch.turn_down(gone, "x", now=NOW)
    assert stands(gone) == (action.pk, 0, NOW, "")


def test_all_batches_of_an_action_that_will_not_be_wait_for_another() -> None:
    ours, others = [batch(), batch()], batch()
    theirs = carrier(others)
    dispatch.release(carrier(*ours), "It was not to be.", now=NOW)
    assert [stands(one) for one in ours] == [(None, 1, NOW, "It was not to be.")] * 2
    assert stands(others) == (theirs.pk, 0, NOW, "")


def test_what_is_carried_comes_with_its_pool() -> None:
    action = carrier(batch(), batch())
    with CaptureQueriesContext(connection) as queries:
        assert len({one.pool.pool_key for one in dispatch.carried(action)}) == 2
    assert len(queries) == 1


@pytest.mark.parametrize(("turns", "wait"), [(0, 0), (1, 1), (2, 2), (3, 4), (4, 8)])
def test_the_first_refusal_costs_no_time_and_each_further_one_twice_as_much(turns: int, wait: int) -> None:
    one = batch(turns=turns)
    dispatch.turn_down(one, "why", now=NOW)
    assert stands(one) == (None, turns + 1, NOW + wait * SECOND, "why")


def test_no_wait_is_longer_than_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_TURNS", 100)
    waits = []
    for turns in (9, 10, 40):
        one = batch(turns=turns)
        dispatch.turn_down(one, "why", now=NOW)
        waits.append(stands(one)[2] - NOW)
    assert waits == [256 * SECOND, dispatch.MAX_WAIT, dispatch.MAX_WAIT]


def test_after_too_many_refusals_a_batch_waits_for_its_deadline(caplog: pytest.LogCaptureFixture) -> None:
    last, further = batch(turns=4), batch(turns=5)
    with caplog.at_level(logging.ERROR):
        dispatch.turn_down(last, "why", now=NOW)
        assert caplog.messages == []
        dispatch.turn_down(further, "why", now=NOW)
    assert stands(last) == (None, 5, NOW + 8 * SECOND, "why")
    assert stands(further) == (None, 6, further.deadline, "why")
    assert caplog.messages == [f"{further} is parked until its deadline: why"]
    assert plan(NOW + 30 * timedelta(minutes=1)) == [[last.pk]]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_batch_keeps_its_turns_while_its_way_is_being_made(kind: Kind) -> None:
    of = opened()
    one, deep = batch(of), batch(of, turns=3)
    made = intents.record(kind, dedupe_key="way", pool=of)
    dispatch.turn_down(one, "not yet", now=NOW)
    dispatch.turn_down(deep, "not yet", now=NOW)
    makes_way = kind in {Kind.OPEN_POOL, Kind.TOP_UP, Kind.ALLOW_PROVIDERS}
    assert stands(one) == ((None, 0, NOW + SECOND, "not yet") if makes_way else (None, 1, NOW, "not yet"))
    assert stands(deep) == (None, 3 if makes_way else 4, NOW + (1 if makes_way else 4) * SECOND, "not yet")
    assert made.pool == of


@pytest.mark.parametrize("status", list(ChainAction.Status))
def test_a_way_is_being_made_until_it_is_mined(status: str) -> None:
    of = opened()
    one = batch(of)
    intents.record(Kind.TOP_UP, dedupe_key="way", pool=of)
    intents.record(Kind.TOP_UP, dedupe_key="way of others", pool=books.pool())
    ChainAction.objects.filter(dedupe_key="way").update(status=status)
    dispatch.turn_down(one, "not yet", now=NOW)
    live = status in {"planned", "signed", "broadcast"}
    assert stands(one)[1:3] == ((0, NOW + SECOND) if live else (1, NOW))
