"""Reading the chain: everything once, in bounded steps, from where it was, and nothing that our books have no room for."""

import logging
from contextlib import suppress
from dataclasses import replace

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import LazySettings

from escrow import crashpoints, ledger, mirroring, receipts, settlement
from escrow.chain import deploy, events, wire
from escrow.chain.abi import codec
from escrow.chain.client import Block, BlockTag, ChainClient, Tiers
from escrow.chain.errors import ChainRefused
from escrow.chain.events import PoolEvent
from escrow.errors import EscrowError
from escrow.models import Batch, ChainCursor, ChainLog, Event, Party, Payment, Pool, Session
from marketplace.management.faults.rpc_proxy import RpcProxy
from tests.chain.world import PROVIDERS, World
from tests.onchain.conftest import Chain, books
from tests.onchain.towns import in_processes, mine, mine_what_is_sent

MANY = 100_000
KILLED = -9


@pytest.fixture
def still(chain: Chain) -> Chain:
    """A chain that makes a block only when something is sent."""
    mine_what_is_sent(chain)
    return chain


@pytest.fixture
def owing(still: Chain, lint: Party) -> Session:
    """A session that owes a provider 0.30, in a batch that is signed and has not been sent."""
    pool = still.open_pool(1_000_000, providers=(lint,))
    session = still.session(pool, 1_000_000)
    still.pay(session, lint, 300_000)
    assert still.settle() == 1
    return session


def cursor() -> ChainCursor:
    return ChainCursor.objects.get()


def head(chain: Chain) -> int:
    block = chain.client.block("latest")
    assert block is not None
    return block.number


def logs() -> list[tuple[str, str, str]]:
    return list(ChainLog.objects.order_by("block_number", "log_index").values_list("event", "ref", "tier"))


def land(chain: Chain, batch: Batch) -> None:
    """Land a batch as its provider would, whatever we think of it."""
    deploy.send(chain.client, chain.somebody(), chain.contract.address, receipts.calldata(batch))


class Stretched(ChainClient):
    """A client of a longer chain: after some blocks of the node come many empty ones, which anvil takes hours to make."""

    gaps: tuple[tuple[int, int], ...] = ()
    """The block of the node that a gap follows, and how long the gap is; in order."""

    def _numbered(self, real: int) -> int:
        return real + sum(length for after, length in self.gaps if real > after)

    def _real(self, number: int) -> tuple[int, bool]:
        """The block of the node that a number has, or the last before the gap that it is in."""
        for after, length in self.gaps:
            if number <= after:
                return number, True
            if number <= after + length:
                return after, False
            number -= length
        return number, True

    def _seen(self, real: Block, number: int) -> Block:
        invented = number != self._numbered(real.number)
        return replace(real, number=number, hash=f"0x{number:064x}" if invented else real.hash)

    def tiers(self) -> Tiers:
        latest = super().tiers().latest
        end = max([self._numbered(latest.number), *(self._numbered(after) + length for after, length in self.gaps)])
        head = self._seen(latest, end)
        return Tiers(latest=head, safe=head, final=head)

    def agreed_tiers(self) -> Tiers:
        return self.tiers()

    def block(self, which: BlockTag = "latest") -> Block | None:
        if not isinstance(which, int):
            return super().block(which)
        found = super().block(self._real(which)[0])
        return found and self._seen(found, which)

    def agreed_block(self, number: int) -> Block | None:
        return self.block(number)

    def agreed_logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        (begin, there), (end, _) = self._real(first), self._real(last)
        begin += 0 if there else 1
        found = self.logs(address, begin, end) if begin <= end else []
        return [
            replace(each, place=replace(each.place, block_number=self._numbered(each.place.block_number)))
            for each in found
        ]

    def nonce(self, address: str, block: BlockTag = "latest") -> int:
        return super().nonce(address, self._real(block)[0] if isinstance(block, int) else block)

    def call(self, to: str, data: bytes, block: BlockTag = "latest", from_: str | None = None) -> bytes:
        return super().call(to, data, self._real(block)[0] if isinstance(block, int) else block, from_)


@pytest.mark.parametrize("point", ["index.read", "index.committed"])
def test_a_hundred_thousand_blocks_are_read_in_chunks_and_a_kill_costs_none_of_them(
    still: Chain, lint: Party, owing: Session, settings: LazySettings, caplog: pytest.LogCaptureFixture, point: str
) -> None:
    still.index()
    start, batch = cursor().block_number, Batch.objects.get()
    land(still, batch)
    landed = head(still)

    def stretched() -> Stretched:
        client = Stretched(settings.RPC_URL)
        client.gaps = ((start, MANY // 2), (landed, MANY // 2 - (landed - start)))
        return client

    still.client = stretched()
    assert still.client.tiers().final.number == start + MANY
    settings.INDEX_SECONDS = 0

    def until_killed(number: int) -> None:
        still.client = stretched()
        crashpoints.arm(point, passes=2)
        for _ in range(9):
            still.index()

    assert in_processes(1, until_killed) == [KILLED]
    chunks = 2 if point == "index.read" else 3  # the chunk that was not committed is read again
    assert cursor().block_number == start + chunks * settings.INDEX_BLOCK_RANGE
    with caplog.at_level(logging.INFO, logger="escrow.indexer"):
        assert still.index() == settings.INDEX_BLOCK_RANGE
    assert f"is at block {cursor().block_number} of {start + MANY}" in caplog.text
    sweeps = 0
    while cursor().block_number < start + MANY:
        assert 0 < still.index() <= settings.INDEX_BLOCK_RANGE
        sweeps += 1
    assert sweeps == MANY // settings.INDEX_BLOCK_RANGE - chunks - 1
    batch.refresh_from_db()
    assert batch.status == Batch.Status.SETTLED
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert still.reconcile().exit_code < 2


def test_two_indexers_at_once_take_each_log_once(
    still: Chain, lint: Party, owing: Session, settings: LazySettings
) -> None:
    settings.INDEX_BLOCK_RANGE = 3
    mine(still, 50)
    land(still, Batch.objects.get())
    mine(still, 50)

    def read(number: int) -> None:
        still.client = ChainClient(settings.RPC_URL)
        for _ in range(20):
            still.index()

    assert in_processes(3, read) == [0, 0, 0]
    assert cursor().block_number == head(still)
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert ChainLog.objects.filter(event="BatchSettled").count() == 1
    assert still.reconcile().exit_code < 2


def test_the_same_blocks_read_again_change_nothing(still: Chain, lint: Party, owing: Session) -> None:
    land(still, Batch.objects.get())
    still.index()
    before, told = books(), logs()
    first = still.client.block(ChainLog.objects.order_by("block_number")[0].block_number - 1)
    assert first is not None
    ChainCursor.objects.update(block_number=first.number, block_hash=first.hash)
    assert still.index() == head(still) - first.number
    assert (books(), logs(), cursor().stopped_reason) == (before, told, "")


def test_a_log_that_one_node_leaves_out_is_waited_for(
    still: Chain, lint: Party, owing: Session, settings: LazySettings
) -> None:
    still.index()
    with RpcProxy(settings.RPC_URL) as liar:
        still.client = ChainClient(f"{liar.url},{settings.RPC_URL}", finality=1)
        land(still, Batch.objects.get())
        before, at = books(), cursor().block_number
        liar.fault("logs")
        for _ in range(3):
            assert still.index() == 0
        assert (books(), cursor().block_number, cursor().stopped_reason) == (before, at, "")
        liar.clear()
        still.until(lambda: Batch.objects.get().status == Batch.Status.SETTLED, "both nodes tell the same")
    still.client = ChainClient(settings.RPC_URL)
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000
    assert still.reconcile().exit_code < 2


class Narrow(ChainClient):
    """A client of a node that gives few blocks at once."""

    most = 30
    asked: list[int]

    def agreed_logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        self.asked.append(last - first + 1)
        if last - first + 1 > self.most:
            raise ChainRefused("eth_getLogs", -32005, "query returned more than 10000 results")
        return super().agreed_logs(address, first, last)


def test_a_node_that_gives_fewer_blocks_at_once_is_asked_for_fewer(
    still: Chain, lint: Party, owing: Session, settings: LazySettings
) -> None:
    settings.INDEX_BLOCK_RANGE = 200
    still.index()
    narrow = Narrow(settings.RPC_URL)
    narrow.asked = []
    still.client = narrow
    land(still, Batch.objects.get())
    mine(still, 300)
    still.index()
    assert narrow.asked[:4] == [200, 100, 50, 25]
    assert narrow.asked[4:6] == [32, 16]  # a quarter more each time that it went well
    assert cursor().block_number == head(still)
    assert Batch.objects.get().status == Batch.Status.SETTLED
    narrow.asked, narrow.most = [], 200
    for _ in range(8):
        mine(still, 200)
        still.index()
    assert narrow.asked[-1] == 200


class Endless(ChainClient):
    """A node that takes longer than a worker has, whenever it is asked for more blocks than this at once."""

    quick = 3

    def agreed_logs(self, address: str, first: int, last: int) -> list[PoolEvent]:
        if last - first >= self.quick:
            raise SoftTimeLimitExceeded
        return super().agreed_logs(address, first, last)


def test_a_chunk_that_takes_longer_than_a_worker_has_is_shorter_the_next_time(
    still: Chain, settings: LazySettings
) -> None:
    settings.INDEX_BLOCK_RANGE = 16
    still.index()
    mine(still, 16)
    still.client = Endless(settings.RPC_URL, finality=settings.FINALITY)
    begun, spans = still.cursor(), list[int]()
    for _ in range(3):
        with pytest.raises(SoftTimeLimitExceeded):
            still.index()
        spans.append(cursor().span)
    assert (spans, still.cursor()) == ([8, 4, 2], begun)
    for _ in range(10):  # it feels its way up again, and is cut short when that was too much
        with suppress(SoftTimeLimitExceeded):
            still.index()
    assert still.cursor() == begun + 16


def test_a_chunk_holds_only_so_many_logs_and_cuts_no_block(
    still: Chain, lint: Party, owing: Session, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    land(still, Batch.objects.get())
    monkeypatch.setattr("escrow.indexer.MAX_LOGS", 1)
    settings.INDEX_SECONDS = 0
    before = cursor().block_number
    still.index()
    block = ChainLog.objects.get(event="BatchSettled").block_number
    assert before < cursor().block_number == block
    assert ChainLog.objects.filter(block_number=block).count() == 2  # the credit and the batch


def test_a_batch_that_was_void_and_lands_stops_the_indexer(still: Chain, lint: Party, owing: Session) -> None:
    still.index()
    batch = settlement.void(batch=Batch.objects.get())
    land(still, batch)
    before = books()
    still.index()
    assert "is not one that we wait for" in cursor().stopped_reason
    assert still.index() == 0
    assert books() == before
    assert Payment.objects.get().status == Payment.Status.PAYABLE
    assert still.reconcile().exit_code == 2


def test_what_the_contract_leaves_out_is_on_record(still: Chain, lint: Party, owing: Session) -> None:
    batch = Batch.objects.get()
    land(still, batch)
    still.index()
    before = books()
    again = (owing.pool.key, bytes(batch.packed), bytes.fromhex(batch.root[2:]), int(batch.deadline.timestamp()))
    stranger = (b"\7" * 32, *again[1:])
    calls = codec("BudgetPool")
    items = [(*item, bytes(batch.signature)) for item in (again, stranger)]
    claims = [(owing.pool.key, PROVIDERS[0])]
    for data in (calls.call("settleMany", items), calls.call("withdrawMany", claims)):
        deploy.send(still.client, still.somebody(), still.contract.address, data)
    still.index()
    assert books() == before
    left_out = ChainLog.objects.filter(event__endswith="Rejected").order_by("block_number", "log_index")
    assert [(row.event, row.pool_id) for row in left_out] == [
        ("ItemRejected", owing.pool_id),
        ("ItemRejected", None),
        ("WithdrawalRejected", owing.pool_id),
    ]
    assert all(len(row.args["reason"]) >= 10 for row in left_out)
    assert cursor().stopped_reason == ""


def test_pools_of_others_on_the_contract_never_stop_the_indexer(still: Chain, lint: Party, owing: Session) -> None:
    keys = [still.somebody() for _ in range(4)]
    world = World(
        client=still.client,
        usdc=still.token,
        contract=still.contract,
        payer=keys[0],
        authorizer=keys[1],
        arbiter=keys[2],
        relayer=keys[3],
        fee_recipient="",
        token_domain=still.token.domain(),
        domain=still.contract.domain(),
    )
    before = books()
    terms = world.terms(dispute_window=0)
    key = world.open(terms, 2_000_000)
    world.send(world.settlement(key, [wire.Record(PROVIDERS[0], 1_000_000)]))
    calls = codec("BudgetPool")
    world.send(calls.call("allowProviders", key, [lint.address]), keys[0])
    world.send(calls.call("setAuthorizer", key, keys[2].address), keys[0])
    world.send(calls.call("requestClose", key), keys[0])
    still.index()
    assert books() == before
    assert cursor().stopped_reason == ""
    assert {row.event for row in ChainLog.objects.filter(pool=None)} >= {
        "PoolOpened",
        "Credited",
        "BatchSettled",
        "ProvidersAllowed",
        "AuthorizerChangeRequested",
        "CloseRequested",
    }
    still.quiet()
    assert ledger.balance(ledger.credited(owing.pool, lint)) == 300_000


def test_a_payer_that_names_another_authorizer_ends_the_spending_and_is_settled_at_once(
    still: Chain, lint: Party, settings: LazySettings
) -> None:
    settings.CLOSE_DELAY = 3_600
    settings.SETTLE_MIN_MICROS = 10_000_000
    pool = still.open_pool(1_000_000, providers=(lint,))
    session = still.session(pool, 1_000_000)
    still.pay(session, lint, 300_000)
    assert still.settle() == 0  # too little to settle yet
    payer, other = still.keyring.payer(str(pool.payer_id)), still.somebody()
    still.client.request("anvil_setBalance", [payer.address, hex(10**20)])
    change = codec("BudgetPool").call("setAuthorizer", pool.key, other.address)
    deploy.send(still.client, payer, still.contract.address, change)
    still.index()
    assert still.fresh(pool).status == Pool.Status.CLOSING
    (told,) = Event.objects.filter(type="pool.authorizer_changing").values_list("payload", flat=True)
    assert told == {"next": other.address}
    before = books()
    with pytest.raises(EscrowError) as caught:
        still.pay(session, lint, 1_000)
    assert caught.value.code == "conflict"
    assert books() == before
    assert still.settle() == 1
    still.quiet()
    assert ledger.balance(ledger.credited(pool, lint)) == 300_000
    still.client.request("evm_increaseTime", [3_601])
    deploy.send(still.client, payer, still.contract.address, codec("BudgetPool").call("applyAuthorizer", pool.key))
    still.index()
    assert ChainLog.objects.get(event="AuthorizerChanged").args["authorizer"] == other.address
    assert cursor().stopped_reason == ""
    assert still.reconcile().exit_code < 2


def test_every_event_of_the_contract_is_known_and_has_its_effect_or_says_why_it_has_none() -> None:
    of_contract = {entry.name for entry in codec("BudgetPool").events.values()} - {"EIP712DomainChanged"}
    known = {kind.__name__: kind for kind in PoolEvent.__subclasses__()}
    assert set(known) == of_contract
    of_a_pool = {kind for kind in known.values() if "pool_id" in kind.__dataclass_fields__}
    for kind in of_a_pool:
        assert mirroring.apply.dispatch(kind) is not mirroring.apply.dispatch(object), kind
    assert set(known.values()) - of_a_pool == {events.FeesWithdrawn, *mirroring.OF_NO_POOL}
