"""The relay: chain actions become mined chain transactions. Lives here: nonces, signing, sending, replacing, confirming.

The order is always: record the action; commit signed bytes, hash and nonce; send; look for the receipt. So a crash at any
point leaves either nothing sent or bytes that are sent again, the same ones. A nonce comes from our own table, never from
the node. One relay works for a chain at a time, under an advisory lock of PostgreSQL.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, QuerySet

from escrow import intents, lifecycle, signing, surrender, trail
from escrow.chain.client import ChainClient, Fees, Receipt
from escrow.chain.errors import ChainRefused, ChainReverted, ChainUnavailable
from escrow.chain.outcomes import SendOutcome
from escrow.chain.signer import Signer, Signers, TransactionFields
from escrow.models import Attempt, ChainAction, SignerNonce
from escrow.signing import Signatory

log = logging.getLogger(__name__)
Kind = ChainAction.Kind
Status = ChainAction.Status

GAS_MARGIN_PERCENT: Final = 25
"""Above the estimate: storage touched meanwhile by others makes the same call dearer."""
GAS_MARGIN: Final = 40_000
"""At least this much: two slots that others empty meanwhile cost 17,100 more each to fill again."""
BUMP_PERCENT: Final = 13
"""A replacement must pay 10 % more on both fees at most nodes, 12.5 % at some."""
MAX_REPLACEMENTS: Final = 12
"""1.13 to the twelfth is 4.3 times the first fee: more than that is a person's decision."""
MAX_WAIT_SECONDS: Final = 60
NONCE_DEPTH: Final = 5
"""Blocks that must stand on a nonce before it counts as used by somebody else."""


@dataclass(frozen=True)
class Relay:
    """A chain, the keys, and the moment. `run` does whatever can be done now."""

    client: ChainClient
    keyring: Signers
    now: datetime

    def run(self) -> int:
        """Take every due action one step further; return how many changed. Another relay at work: nothing."""
        with intents.exclusively(f"escrow.relay:{settings.CHAIN_ID}") as free:
            if not free:
                return 0
            try:
                return self._confirm_all() + self._sign_all()
            except ChainUnavailable as error:
                log.warning("The chain cannot be reached; the relay tries again: %s", error)
                return 0

    # --- planned -> signed -------------------------------------------------------------------------------------------
    def _sign_all(self) -> int:
        due = (
            ChainAction.objects.filter(status=Status.PLANNED, next_at__lte=self.now)
            .select_related("pool")
            .order_by("pk")
        )
        changed = 0
        for action in due[: settings.RELAY_BATCH]:
            changed += self._each(self._sign, action)
        return changed

    def _sign(self, action: ChainAction) -> bool:
        signer = self.keyring.signer(signing.sender_role(action.kind))
        nonces = self._nonces(signer)
        if nonces.stopped_reason:
            return False
        if signing.moot(action):
            lifecycle.move(action, Status.PARKED, error="It is not needed any more.")
            return True
        try:
            calldata = signing.calldata(action, Signatory(self.client, self.keyring), self.now)
            gas = self.client.estimate_gas(signer.address, signing.target(action.kind), calldata)
        except ChainRefused as error:  # the node's own trouble says nothing about the call
            log.warning("The node refused to estimate chain action %s (%s): %s", action.pk, action.kind, error)
            wait = timedelta(seconds=settings.RELAY_RETRY_SECONDS)
            ChainAction.objects.filter(pk=action.pk).update(next_at=self.now + wait, error=str(error))
            return False
        except (ChainReverted, ValueError) as error:
            return self._put_off(action, error)
        gas += max(gas * GAS_MARGIN_PERCENT // 100, GAS_MARGIN)
        fees = self.client.fees()
        with transaction.atomic():
            nonces = SignerNonce.objects.select_for_update(no_key=True).get(pk=nonces.pk)
            attempt = self._attempt(action, signer, nonces.next_nonce, gas, calldata, fees)
            SignerNonce.objects.filter(pk=nonces.pk).update(next_nonce=F("next_nonce") + 1)
            lifecycle.move(
                action,
                Status.SIGNED,
                nonce=nonces.next_nonce,
                signer_address=signer.address,
                calldata=calldata,
                gas_limit=gas,
                tx_hash=attempt.tx_hash,
                error="",
            )
        return self._send(action, attempt)

    def _attempt(
        self, action: ChainAction, signer: Signer, nonce: int, gas: int, calldata: bytes, fees: Fees
    ) -> Attempt:
        signed = signer.sign_transaction(
            TransactionFields(
                chain_id=settings.CHAIN_ID,
                nonce=nonce,
                to=signing.target(action.kind),
                data=calldata,
                gas=gas,
                max_fee_per_gas=fees.max_fee,
                max_priority_fee_per_gas=fees.tip,
            )
        )
        return Attempt.objects.create(
            action=action, tx_hash=signed.hash, raw=signed.raw, max_fee_wei=fees.max_fee, tip_wei=fees.tip
        )

    def _nonces(self, signer: Signer) -> SignerNonce:
        known = SignerNonce.objects.filter(chain_id=settings.CHAIN_ID, address=signer.address).first()
        if known is not None:
            return known
        # The one time that the node is asked: for a key that this database has never used.
        first = self.client.nonce(signer.address, "latest")
        return SignerNonce.objects.create(chain_id=settings.CHAIN_ID, address=signer.address, next_nonce=first)

    def _put_off(self, action: ChainAction, error: Exception) -> bool:
        """The contract refuses it as things are: try later, then park it. Nothing was signed, no nonce is used."""
        attempts = action.attempts + 1
        if attempts >= settings.RELAY_MAX_ATTEMPTS:
            with transaction.atomic():
                lifecycle.move(action, Status.PARKED, attempts=attempts, error=str(error))
                surrender.give_up(action, str(error))
            log.error("Chain action %s (%s) is parked: %s", action.pk, action.kind, error)
            return True
        wait = timedelta(seconds=min(2 ** (attempts - 2), MAX_WAIT_SECONDS))
        ChainAction.objects.filter(pk=action.pk).update(attempts=attempts, next_at=self.now + wait, error=str(error))
        return False

    # --- signed -> broadcast -----------------------------------------------------------------------------------------
    def _send(self, action: ChainAction, attempt: Attempt) -> bool:
        result = self.client.send_raw(bytes(attempt.raw))
        Attempt.objects.filter(pk=attempt.pk).update(outcome=result.outcome.value, sent_at=self.now)
        retry_at = self.now + timedelta(seconds=settings.RELAY_RETRY_SECONDS)
        if result.outcome in (SendOutcome.OK, SendOutcome.ALREADY_KNOWN):
            if action.status == Status.SIGNED:
                lifecycle.move(action, Status.BROADCAST, next_at=retry_at)
                return True
            return False
        detail = f"{result.outcome.value}: {result.detail}"
        ChainAction.objects.filter(pk=action.pk).update(next_at=retry_at, error=detail)
        if result.outcome is SendOutcome.NONCE_TOO_LOW:
            return self._mined(action) or self._check_nonce(action)
        return False

    def _check_nonce(self, action: ChainAction) -> bool:
        """The nonce is used and none of our hashes has a receipt: another program has our key. Stop and say so."""
        head = self.client.block("latest")
        if head is None:
            return False
        # Not at the head: a node may know a nonce a moment before it has the receipt.
        settled = max(head.number - NONCE_DEPTH, 0)
        confirmed = self.client.nonce(action.signer_address, settled)
        if action.nonce is None or confirmed <= action.nonce or self._receipt(action) is not None:
            return False
        reason = f"Nonce {action.nonce} was used by a chain transaction that is none of ours."
        SignerNonce.objects.filter(address=action.signer_address, chain_id=settings.CHAIN_ID).update(
            stopped_reason=reason
        )
        log.critical("Signer %s is stopped: %s", action.signer_address, reason)
        return True

    # --- broadcast -> mined -> final ---------------------------------------------------------------------------------
    def _confirm_all(self) -> int:
        flying = ChainAction.objects.filter(status__in=ChainAction.IN_FLIGHT).select_related("pool").order_by("nonce")
        return sum(self._each(self._follow, action) for action in flying[: settings.SWEEP_LIMIT])

    @staticmethod
    def _each(step: Callable[[ChainAction], bool], action: ChainAction) -> bool:
        """One action that fails in a way nobody thought of must not keep the others waiting; a chain that is away does."""
        with trail.follow(action.request_id, action=action.pk):
            try:
                changed = step(action)
            except ChainUnavailable:
                raise
            except Exception:
                log.exception("Chain action %s (%s) is left for a later sweep", action.pk, action.kind)
                return False
            if changed:
                log.info("Chain action %s (%s) is %s", action.pk, action.kind, action.status)
            return changed

    def _follow(self, action: ChainAction) -> bool:
        if action.status == Status.MINED:
            return self._finish(action)
        if self._mined(action):
            return True
        if action.next_at > self.now:
            return False
        attempts = list(self._attempts(action))
        oldest_sent = attempts[0].sent_at
        patience = timedelta(seconds=settings.RELAY_REPLACE_SECONDS * len(attempts))
        taken = attempts[-1].outcome in (SendOutcome.OK, SendOutcome.ALREADY_KNOWN, SendOutcome.UNDERPRICED)
        if taken and oldest_sent is not None and self.now - oldest_sent > patience:
            return self._replace(action, attempts[-1], len(attempts))
        return self._send(action, attempts[-1])

    def _mined(self, action: ChainAction) -> bool:
        receipt = self._receipt(action)
        if receipt is None:
            return False
        lifecycle.move(
            action,
            Status.MINED,
            tx_hash=receipt.transaction_hash,
            gas_used=receipt.gas_used,
            gas_price_wei=receipt.effective_gas_price,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            mined_at=self.now,
            next_at=self.now,
            error="",
        )
        self._finish(action)
        return True

    def _finish(self, action: ChainAction) -> bool:
        """A mined action is final when enough blocks stand on its own; one whose block is gone is sent again."""
        receipt = self._receipt(action)
        if receipt is None or receipt.block_hash != action.block_hash:
            lifecycle.move(action, Status.BROADCAST, block_hash="", block_number=None, next_at=self.now)
            return True
        head = self.client.block("latest")
        if head is None or head.number - receipt.block_number + 1 < settings.CONFIRMATIONS:
            return False
        if receipt.ok:
            lifecycle.move(action, Status.FINAL)
            return True
        reason = f"Reverted on chain in {receipt.transaction_hash}."
        with transaction.atomic():
            lifecycle.move(action, Status.REVERTED, error=reason)
            surrender.give_up(action, reason)
        log.error("Chain action %s (%s) reverted in %s", action.pk, action.kind, receipt.transaction_hash)
        return True

    def _replace(self, action: ChainAction, last: Attempt, made: int) -> bool:
        """Sign the same call at the same nonce with higher fees: at most one of the two can ever be mined."""
        if made > MAX_REPLACEMENTS:
            log.error("Chain action %s (%s) is not mined at %s times its fee", action.pk, action.kind, made)
            return self._send(action, last)
        market = self.client.fees()
        fees = Fees(
            base_fee=market.base_fee,
            tip=max(market.tip, last.tip_wei + last.tip_wei * BUMP_PERCENT // 100 + 1),
            max_fee=max(market.max_fee, last.max_fee_wei + last.max_fee_wei * BUMP_PERCENT // 100 + 1),
        )
        signer = self.keyring.signer(signing.sender_role(action.kind))
        if signer.address != action.signer_address:
            raise ValueError(f"{action} was signed by {action.signer_address}, whose key is not here any more")
        if action.nonce is None or action.gas_limit is None or action.calldata is None:
            raise ValueError(f"{action} is {action.status} without signed bytes")
        with transaction.atomic():
            attempt = self._attempt(action, signer, action.nonce, action.gas_limit, bytes(action.calldata), fees)
        return self._send(action, attempt)

    def _receipt(self, action: ChainAction) -> Receipt | None:
        for attempt in self._attempts(action):
            receipt = self.client.receipt(attempt.tx_hash)
            if receipt is not None:
                return receipt
        return None

    def _attempts(self, action: ChainAction) -> "QuerySet[Attempt]":
        return Attempt.objects.filter(action=action).order_by("pk")
