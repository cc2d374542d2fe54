"""The relay: planned chain actions become signed chain transactions. Lives here: nonces, and what may be signed now.

The order is always: record the action; commit signed bytes, hash and nonce; send; look for the receipt. So a crash at any
point leaves either nothing sent or bytes that are sent again, the same ones. A nonce comes from our own table, never from
the node. One relay works for a signer at a time, under an advisory lock of PostgreSQL. What follows a signature is `flights`'.
"""

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.db.models import Case, F, Q, QuerySet, When

from escrow import crashpoints, dispatch, gas, intents, lifecycle, signing, surrender
from escrow.chain.client import ChainClient, Fees
from escrow.chain.errors import (
    ChainError,
    ChainRefused,
    ChainReverted,
    ChainUnavailable,
    SignerRefused,
    SignerUnavailable,
)
from escrow.chain.signer import Role, SignedTransaction, Signer, Signers, TransactionFields
from escrow.chain.typed import Message
from escrow.flights import Flights, apart
from escrow.models import Attempt, ChainAction, SignerNonce
from escrow.signing import Signatory

log = logging.getLogger(__name__)
Kind = ChainAction.Kind
Status = ChainAction.Status

GAS_MARGIN_PERCENT: Final = 25
"""Above the estimate: storage touched meanwhile by others makes the same call dearer."""
GAS_MARGIN: Final = 40_000
"""At least this much: two slots that others empty meanwhile cost 17,100 more each to fill again."""
MAX_WAIT_SECONDS: Final = 60
TOO_EARLY: Final = frozenset({"NotEnded", "NothingToWithdraw", "TimeoutTooEarly"})
"""The contract's refusals that time lifts: by our clock it is time, by the newest block's not yet."""
STANDS_STILL: Final = timedelta(minutes=1)
"""Without a block, the chain's clock is no clock: Base makes one every 2 seconds."""


class Waits(Exception):
    """An action cannot be signed now, through no fault of its own."""


@dataclass
class Means:
    """What gas costs now, and what a signer has left for it when all that it has signed since is paid. Wei."""

    fees: Fees
    funds: int


@dataclass
class Former:
    """Whose key is none of ours any more: what it has in flight is followed, and sent again as it is."""

    address: str

    def sign_transaction(self, fields: TransactionFields) -> SignedTransaction:
        """Refuse it."""
        raise SignerRefused("key", f"{self.address} is no signer here any more; nonce {fields.nonce} needs its key")

    def sign_typed(self, message: Message) -> bytes:
        """Refuse it."""
        raise SignerRefused("key", f"{self.address} is no signer here any more: it signs no {message.NAME}")


@dataclass(frozen=True)
class Relay:
    """A chain, the keys, and the moment. `run` does whatever can be done now."""

    client: ChainClient
    keyring: Signers
    now: datetime

    def run(self) -> int:
        """Take every due action of every signer further; return how many steps that took."""
        # Rulings are the arbiter's to send, all else is of the relayer of its pool.
        rulings = Q(kind=Kind.RESOLVE)
        shards = [Q(shard=shard) for shard in range(settings.RELAYERS)]
        shards[0] |= Q(shard__gte=settings.RELAYERS)  # planned for a relayer that there is no more
        signers = [(partial(self.keyring.signer, Role.ARBITER), rulings)]
        signers += [(partial(self.keyring.relayer, shard), mine & ~rulings) for shard, mine in enumerate(shards)]
        done, found = 0, list[Signer]()
        for open_signer, mine in signers:
            try:
                found.append(open_signer())
                done += self._run_for(found[-1], mine)
            except ChainError as error:
                log.warning("The chain or a signer cannot be reached; the relay tries again: %s", error)
        return done + self._follow_former(found) if len(found) == len(signers) else done

    def _follow_former(self, signers: list[Signer]) -> int:
        """Follow what is in flight of who signs no more, as after a change of `RELAYERS`."""
        flying = ChainAction.objects.filter(status__in=ChainAction.IN_FLIGHT)
        left = flying.exclude(signer_address__in=[signer.address for signer in signers])
        done = 0
        for address in set(left.values_list("signer_address", flat=True)):
            try:
                done += self._run_for(Former(address), Q(pk__in=[]))
            except ChainError as error:
                log.warning("The chain cannot be reached; the relay tries again: %s", error)
        return done

    @cached_property
    def _signatory(self) -> Signatory:
        """One for a sweep and no longer: what a node says to it once must not be believed for ever."""
        return Signatory(self.client, self.keyring)

    def _run_for(self, signer: Signer, mine: Q) -> int:
        """Work for one signer for as long as there is something to do, up to a limit. Another relay at it: nothing."""
        with intents.exclusively(f"escrow.relay:{settings.CHAIN_ID}:{signer.address}") as free:
            if not free:
                return 0
            flights, until = Flights(self.client, signer, self.now), time.monotonic() + settings.RELAY_RUN_SECONDS
            done = flights.follow()
            while signed := self._sign_some(flights, mine):
                done += signed + flights.follow()
                if time.monotonic() > until:
                    break
            return done

    def _sign_some(self, flights: Flights, mine: Q) -> int:
        room = settings.RELAY_MAX_IN_FLIGHT - flights.unmined().count()
        due = list(self._due(mine)[: max(0, min(room, settings.RELAY_BATCH))])
        if not due or self._nonces(flights.signer).stopped_reason:
            return 0
        # Asked once for all of them: these say no more about a chain transaction in twenty milliseconds than they say now.
        means = Means(self.client.fees(), self.client.balance(flights.signer.address))
        return sum(apart(action, partial(self._sign_unless_it_waits, action, flights, means)) for action in due)

    def _sign_unless_it_waits(self, action: ChainAction, flights: Flights, means: Means) -> bool:
        try:
            return self._sign(action, flights, means)
        except (Waits, ChainRefused) as reason:  # a node's own trouble says nothing about the action
            self._put_off(action, str(reason), timedelta(seconds=settings.RELAY_RETRY_SECONDS))
            return False
        except SignerUnavailable as error:  # perhaps about this one alone: the next sweep begins with another
            self._put_off(action, str(error), timedelta(seconds=settings.RELAY_RETRY_SECONDS))
            raise
        except (ChainUnavailable, SoftTimeLimitExceeded):
            raise
        except Exception as error:
            if action.status != Status.PLANNED:  # signed: what follows is not for here
                raise
            # Whatever it is, it is counted, and in the end parked: one that stayed due would keep its place before others.
            log.exception("Chain action %s (%s) cannot be signed", action.pk, action.kind)
            return self._refused(action, f"{type(error).__name__}: {error}")

    def _due(self, mine: Q) -> "QuerySet[ChainAction]":
        planned = ChainAction.objects.filter(mine, status=Status.PLANNED, next_at__lte=self.now)
        # In the order of their planning; who was put off comes after, and who has waited longest of them first: however many
        # wait for cheaper gas, each is looked at in its turn, and what waits for nothing is not behind them.
        turn = Case(When(error="", then=None), default=F("next_at"))
        return planned.select_related("pool").order_by(turn.asc(nulls_first=True), "pk")

    def _sign(self, action: ChainAction, flights: Flights, means: Means) -> bool:
        signer = flights.signer
        if action.kind == Kind.SETTLE:
            dispatch.leave_out_refused(action, client=self.client, sender=signer.address, now=self.now)
        if signing.moot(action):
            lifecycle.move(action, Status.DROPPED, error="Nothing was left to do.")
            return True
        try:
            calldata = signing.calldata(action, self._signatory, self.now)
            gas_limit = self._gas_limit(action, signer, calldata)
        except ChainRefused as error:  # the node's own trouble says nothing about the call
            raise Waits(f"The node refused to estimate it: {error}") from error
        except ChainReverted as error:
            if error.name in TOO_EARLY:
                self._require_moving(error)
            return self._refused(action, str(error))
        except ValueError as error:
            return self._refused(action, str(error))
        self._require_affordable(action, signer, gas_limit, means)
        try:
            attempt = self._commit(action, flights, calldata, gas_limit, means.fees)
        except SignerRefused as error:
            if error.passes:
                raise Waits(str(error)) from error
            return self._refused(action, str(error))
        crashpoints.reach("relay.signed")
        flights.send(action, attempt)
        return True

    def _commit(self, action: ChainAction, flights: Flights, calldata: bytes, gas_limit: int, fees: Fees) -> Attempt:
        """Sign with the next nonce, and write both down before anything is sent. Raises Waits when the signer is stopped."""
        address = flights.signer.address
        with transaction.atomic():
            nonces = SignerNonce.objects.select_for_update(no_key=True).get(address=address, chain_id=settings.CHAIN_ID)
            if nonces.stopped_reason:  # by what was sent a moment ago
                raise Waits(nonces.stopped_reason)
            nonce = nonces.next_nonce
            attempt = flights.attempt(action, nonce=nonce, gas_limit=gas_limit, calldata=calldata, fees=fees)
            SignerNonce.objects.filter(pk=nonces.pk).update(next_nonce=F("next_nonce") + 1)
            lifecycle.move(
                action,
                Status.SIGNED,
                nonce=nonce,
                signer_address=address,
                calldata=calldata,
                gas_limit=gas_limit,
                gas_price_wei=gas.price(fees),
                tx_hash=attempt.tx_hash,
                attempts=0,
                error="",
            )
            crashpoints.reach("relay.signing")
        return attempt

    def _require_moving(self, error: ChainReverted) -> None:
        """Return when the chain's clock goes on; while it stands, what is too early by it says nothing yet. Raises Waits."""
        head = self.client.block("latest")
        if head is None or head.timestamp < (self.now - STANDS_STILL).timestamp():
            raise Waits(f"It is too early by the clock of a chain that stands still: {error}")

    def _gas_limit(self, action: ChainAction, signer: Signer, calldata: bytes) -> int:
        """Return the gas to allow. Raises ValueError above what one chain transaction may ask for."""
        estimate = self.client.estimate_gas(signer.address, signing.target(action.kind), calldata)
        limit = estimate + max(estimate * GAS_MARGIN_PERCENT // 100, GAS_MARGIN)
        if limit > gas.TRANSACTION_GAS_CAP:
            raise ValueError(f"It needs {estimate} gas, and a chain transaction may ask for {gas.TRANSACTION_GAS_CAP}.")
        return limit

    def _require_affordable(self, action: ChainAction, signer: Signer, gas_limit: int, means: Means) -> None:
        """Take the most that it can cost from the means, when price, budget and the signer's own ETH allow it. Raises Waits."""
        fees, most = means.fees, gas_limit * means.fees.max_fee
        if reason := gas.too_dear(action, fees, self.now) or gas.over_budget(gas_limit * gas.price(fees), self.now):
            log.warning("Chain action %s (%s) waits: %s", action.pk, action.kind, reason)
            raise Waits(reason)
        if means.funds < most:
            reason = f"Signer {signer.address} has {means.funds / gas.ETHER:.6f} ETH, too little for gas; send it some."
            log.error("Chain action %s (%s) waits: %s", action.pk, action.kind, reason)
            raise Waits(reason)
        means.funds -= most

    def _nonces(self, signer: Signer) -> SignerNonce:
        known = SignerNonce.objects.filter(chain_id=settings.CHAIN_ID, address=signer.address).first()
        if known is not None:
            return known
        # The one time that the node is asked: for a key that this database has never used.
        first = self.client.nonce(signer.address, "latest")
        return SignerNonce.objects.create(chain_id=settings.CHAIN_ID, address=signer.address, next_nonce=first)

    def _put_off(self, action: ChainAction, reason: str, wait: timedelta, **changes: object) -> None:
        rows = ChainAction.objects.filter(pk=action.pk, status=Status.PLANNED)
        rows.update(next_at=self.now + wait, error=reason, **changes)

    def _refused(self, action: ChainAction, reason: str) -> bool:
        """The contract refuses it as things are: try later, then park it. Nothing was signed, no nonce is used."""
        attempts = action.attempts + 1
        together = action.kind == Kind.SETTLE and len(dispatch.carried(action)) > 1
        if not together and attempts < settings.RELAY_MAX_ATTEMPTS:
            wait = timedelta(seconds=min(2 ** (attempts - 2), MAX_WAIT_SECONDS))
            self._put_off(action, reason, wait, attempts=attempts)
            return False
        with transaction.atomic():
            # A group that fails as a whole goes on in halves: nobody is to blame yet.
            lifecycle.move(action, Status.DROPPED if together else Status.PARKED, attempts=attempts, error=reason)
            surrender.give_up(action, reason, now=self.now)
        log.error("Chain action %s (%s) is %s: %s", action.pk, action.kind, action.status, reason)
        return True
