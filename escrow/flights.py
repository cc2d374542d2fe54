"""Flights: the chain transactions of one signer, from signed bytes to final. Lives here: sending, replacing, confirming.

A nonce is used by exactly one chain action, and every attempt at it carries the same nonce: at most one of them can be
mined, and any of them settles the action. Bytes are committed before they are sent, and sent again as they are. Whether
something is mined is decided only on answers, never on the want of one.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Final

from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from escrow import crashpoints, dispatch, gas, lifecycle, signing, surrender, trail
from escrow.chain.client import Block, ChainClient, Fees, Receipt, Tiers
from escrow.chain.errors import ChainUnavailable, ChainUnconfirmed, SignerRefused, SignerUnavailable
from escrow.chain.outcomes import TAKEN, SendOutcome
from escrow.chain.signer import Signer, TransactionFields
from escrow.models import Attempt, ChainAction, SignerNonce

log = logging.getLogger(__name__)
Status = ChainAction.Status
BlockAt = Callable[[int], Block | None]

NONCE_DEPTH: Final = 5
"""Blocks that must stand on a nonce before it counts as used by somebody else."""


@dataclass(frozen=True)
class Flights:
    """What a signer has in flight, and the moment."""

    client: ChainClient
    signer: Signer
    now: datetime

    def follow(self) -> int:
        """Take everything in flight one step further; return how many changed. Raises ChainUnavailable."""
        tiers = self.client.tiers()
        return self._watch_standing(tiers) + self._watch_unmined(tiers)

    def unmined(self) -> "QuerySet[ChainAction]":
        """Return what is signed and in no block, the lowest nonce first."""
        mine = ChainAction.objects.filter(signer_address=self.signer.address, status__in=ChainAction.UNMINED)
        return mine.select_related("pool").prefetch_related("signed_attempts").order_by("nonce")

    # --- signed bytes ------------------------------------------------------------------------------------------------
    def attempt(self, action: ChainAction, *, nonce: int, gas_limit: int, calldata: bytes, fees: Fees) -> Attempt:
        """Sign and record one attempt at an action, in the caller's database transaction."""
        return self._attempt(action, nonce, gas_limit, calldata, fees, to=signing.target(action.kind), cancels=False)

    def _attempt(
        self, action: ChainAction, nonce: int, gas_limit: int, calldata: bytes, fees: Fees, *, to: str, cancels: bool
    ) -> Attempt:
        signed = self.signer.sign_transaction(
            TransactionFields(
                chain_id=settings.CHAIN_ID,
                nonce=nonce,
                to=to,
                data=calldata,
                gas=gas_limit,
                max_fee_per_gas=fees.max_fee,
                max_priority_fee_per_gas=fees.tip,
            )
        )
        return Attempt.objects.create(
            action=action,
            tx_hash=signed.hash,
            raw=signed.raw,
            max_fee_wei=fees.max_fee,
            tip_wei=fees.tip,
            cancels=cancels,
        )

    def send(self, action: ChainAction, attempt: Attempt) -> bool:
        """Broadcast an attempt and note what the node said; return whether the action moved."""
        result = self.client.send_raw(bytes(attempt.raw))
        crashpoints.reach("relay.sent")
        Attempt.objects.filter(pk=attempt.pk).update(
            outcome=result.outcome.value, sent_at=Coalesce("sent_at", Value(self.now))
        )
        retry_at = self.now + timedelta(seconds=settings.RELAY_RETRY_SECONDS)
        if result.outcome in TAKEN:
            if action.status == Status.SIGNED:
                lifecycle.move(action, Status.BROADCAST, next_at=retry_at)
                crashpoints.reach("relay.broadcast")
                return True
            ChainAction.objects.filter(pk=action.pk).update(next_at=retry_at)
            return False
        changes: dict[str, object] = {"next_at": retry_at, "error": f"{result.outcome.value}: {result.detail}"}
        if result.outcome is SendOutcome.REFUSED:
            changes["attempts"] = F("attempts") + 1
        ChainAction.objects.filter(pk=action.pk).update(**changes)
        log.warning("Chain action %s (%s) was not taken: %s", action.pk, action.kind, changes["error"])
        if result.outcome is SendOutcome.NONCE_TOO_LOW:
            attempts = list(action.signed_attempts.order_by("pk"))  # asked anew: one may just have been added
            return self._mined(action, attempts, self.client.block) is not None or self._is_foreign(action)
        return False

    # --- signed, broadcast -> mined ----------------------------------------------------------------------------------
    def _watch_unmined(self, tiers: Tiers) -> int:
        changed, in_order, block_at = 0, True, cache(self.client.block)
        for action in self.unmined()[: settings.SWEEP_LIMIT]:
            # Above a nonce that is not mined none can be: those are not looked up, only sent again.
            changed += apart(action, partial(self._step, action, tiers, block_at, look_up=in_order))
            in_order = action.status not in ChainAction.UNMINED
        return changed

    def _step(self, action: ChainAction, tiers: Tiers, block_at: BlockAt, *, look_up: bool) -> bool:
        receipt = self._mined(action, _attempts(action), block_at) if look_up else None
        if receipt is None:
            return self._push(action)
        self._finish_if_final(action, tiers, seen=receipt)
        return True

    def _mined(self, action: ChainAction, attempts: list[Attempt], block_at: BlockAt) -> Receipt | None:
        for attempt in reversed(attempts):
            if (receipt := self.client.receipt(attempt.tx_hash)) is not None:
                break
        else:
            return None
        block = block_at(receipt.block_number)
        if block is None or block.hash != receipt.block_hash:
            log.warning("A node tells of %s in a block that the chain does not have", receipt.transaction_hash)
            return None
        crashpoints.reach("relay.mined")
        lifecycle.move(
            action,
            Status.MINED,
            tx_hash=attempt.tx_hash,
            gas_used=receipt.gas_used,
            gas_price_wei=receipt.effective_gas_price,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            mined_at=self.now,
            next_at=self.now,
            error="",
        )
        return receipt

    def _push(self, action: ChainAction) -> bool:
        """Send again what is due, with other fees when it has waited for long; return whether the action moved."""
        attempts = _attempts(action)
        asked_to_cancel = bool(action.params.get("cancel")) and not attempts[-1].cancels
        if asked_to_cancel or action.params.get("bump"):
            params = {key: value for key, value in action.params.items() if key != "bump"}
            # Only if nobody has asked for more meanwhile: that is seen the next time.
            if not ChainAction.objects.filter(pk=action.pk, params=action.params).update(params=params):
                return False
            return self._replace(action, attempts, cancels=asked_to_cancel or attempts[-1].cancels, by_hand=True)
        if action.next_at > self.now:
            return False
        if action.attempts >= settings.RELAY_MAX_ATTEMPTS and not attempts[-1].cancels:
            log.error("Chain action %s (%s) can never be mined as it is; its nonce is freed", action.pk, action.kind)
            return self._replace(action, attempts, cancels=True)
        if self._waited_for_long(attempts):
            return self._replace(action, attempts, cancels=attempts[-1].cancels)
        return self.send(action, attempts[-1])

    def _waited_for_long(self, attempts: list[Attempt]) -> bool:
        first, last = attempts[0], attempts[-1]
        if last.outcome == SendOutcome.UNDERPRICED:
            return True
        if last.outcome not in TAKEN or first.sent_at is None:
            return False
        return self.now - first.sent_at > timedelta(seconds=settings.RELAY_REPLACE_SECONDS * len(attempts))

    def _replace(self, action: ChainAction, attempts: list[Attempt], *, cancels: bool, by_hand: bool = False) -> bool:
        """Sign again at the same nonce with higher fees, the same call or an empty one: at most one can ever be mined."""
        last, fees = attempts[-1], gas.bumped(attempts[-1], self.client.fees())
        if not by_hand and gas.past_cap(fees, tried=len(attempts)):
            error = f"It is not mined at {last.max_fee_wei / gas.GWEI:.3f} gwei; to offer more is a person's decision."
            ChainAction.objects.filter(pk=action.pk).update(error=error)
            log.error("Chain action %s (%s): %s", action.pk, action.kind, error)
            return self.send(action, last)
        if action.nonce is None or action.gas_limit is None or action.calldata is None:
            raise ValueError(f"{action} is {action.status} without signed bytes")
        to, call, limit = signing.target(action.kind), bytes(action.calldata), action.gas_limit
        if cancels:
            to, call, limit = self.signer.address, b"", gas.CANCEL_GAS
        try:
            with transaction.atomic():
                attempt = self._attempt(action, action.nonce, limit, call, fees, to=to, cancels=cancels)
        except (SignerRefused, SignerUnavailable) as error:  # what is signed already is no worse for that
            ChainAction.objects.filter(pk=action.pk).update(error=f"It has no replacement: {error}")
            log.warning("Chain action %s (%s) has no replacement: %s", action.pk, action.kind, error)
            return self.send(action, last)
        crashpoints.reach("relay.replacing")
        return self.send(action, attempt)

    def _is_foreign(self, action: ChainAction) -> bool:
        """The nonce is used and none of our hashes has a receipt: another program has our key. Stop and say so."""
        tiers = self.client.tiers()
        # Not at the head: a node may know a nonce a moment before it has the receipt.
        depth = max(min(tiers.final.number, tiers.latest.number - NONCE_DEPTH), 0)
        used = self.client.agreed_nonce(action.signer_address, depth)
        if action.nonce is None or used <= action.nonce:
            return False
        # Two nodes are asked about every hash: what one of them has lost, or hides, stops no signer.
        hashes = action.signed_attempts.values_list("tx_hash", flat=True)
        if any(self.client.agreed_receipt(tx_hash) is not None for tx_hash in hashes):
            return False
        reason = f"Nonce {action.nonce} was used by a chain transaction that is none of ours."
        rows = SignerNonce.objects.filter(address=action.signer_address, chain_id=settings.CHAIN_ID)
        rows.update(stopped_reason=reason)
        log.critical("Signer %s is stopped: %s", action.signer_address, reason)
        self._end(action, Status.REVERTED, reason)  # that is final: no attempt at it can be mined any more
        return True

    # --- mined -> safe -> final --------------------------------------------------------------------------------------
    def _watch_standing(self, tiers: Tiers) -> int:
        """Take what stands in blocks further, or back when its block is gone."""
        mine = ChainAction.objects.filter(signer_address=self.signer.address, status__in=[Status.MINED, Status.SAFE])
        is_old, mine = Q(block_number__lte=tiers.final.number), mine.select_related("pool")
        changed, below, asked, at = 0, -1, -1, ""
        for action in mine.exclude(is_old).order_by("-block_number")[: settings.RELAY_WATCHED]:
            number = action.block_number or 0
            if below < 0 and number != asked:
                block = self.client.block(number)
                asked, at = number, block.hash if block else ""
            there = number < below or at == action.block_hash
            below = max(below, number) if there else below  # a block that is still there has all blocks before it
            step = self._finish_if_final if there else self._gone
            changed += apart(action, partial(step, action, tiers))
        # However much stands above them these end, the oldest first; whether one is still there its receipt says.
        for action in mine.filter(is_old).order_by("block_number")[: settings.RELAY_WATCHED]:
            changed += apart(action, partial(self._finish_if_final, action, tiers))
        return changed

    def _gone(self, action: ChainAction, tiers: Tiers) -> bool:
        """Its block is gone: it is sent again, the same bytes."""
        log.warning("Chain action %s (%s): block %s is gone", action.pk, action.kind, action.block_hash)
        lifecycle.move(
            action, Status.BROADCAST, block_hash="", block_number=None, mined_at=None, gas_used=None, next_at=self.now
        )
        return True

    def _finish_if_final(self, action: ChainAction, tiers: Tiers, seen: Receipt | None = None) -> bool:
        number = action.block_number or 0
        if number > tiers.final.number:
            if action.status == Status.MINED and number <= tiers.safe.number:
                lifecycle.move(action, Status.SAFE)
                return True
            return False
        try:
            receipt = self.client.agreed_receipt(action.tx_hash, seen=seen)
        except ChainUnconfirmed as error:  # what is not final can wait for a second node, and all else goes on
            log.warning("Chain action %s (%s) stays %s: %s", action.pk, action.kind, action.status, error)
            return False
        if receipt is None or receipt.block_hash != action.block_hash:
            return self._gone(action, tiers)
        attempts = {attempt.tx_hash: attempt for attempt in action.signed_attempts.all()}
        mine = attempts.pop(action.tx_hash)
        with transaction.atomic():
            if attempts:
                action.signed_attempts.filter(tx_hash__in=attempts).update(outcome=Attempt.REPLACED)
            if receipt.ok and not mine.cancels:
                lifecycle.move(action, Status.FINAL)
                if action.kind == ChainAction.Kind.SETTLE:
                    dispatch.landed(action, receipt, now=self.now)
            else:
                what = "Cancelled at its nonce in" if mine.cancels else "Reverted on chain in"
                self._end(action, Status.REVERTED, f"{what} {action.tx_hash}.")
        crashpoints.reach("relay.final")
        return True

    @transaction.atomic
    def _end(self, action: ChainAction, to: str, reason: str) -> None:
        lifecycle.move(action, to, error=reason)
        surrender.give_up(action, reason, now=self.now)
        log.error("Chain action %s (%s) is %s: %s", action.pk, action.kind, to, reason)


def _attempts(action: ChainAction) -> list[Attempt]:
    """Return an action's attempts as they were read with it, the first one first."""
    return sorted(action.signed_attempts.all(), key=lambda attempt: attempt.pk)


def apart(action: ChainAction, step: Callable[[], bool]) -> bool:
    """Take one action's step: if it fails in a way nobody thought of, the others go on. A chain that is away stops all."""
    with trail.follow(action.request_id, action=action.pk):
        try:
            changed = step()
        except (ChainUnavailable, SoftTimeLimitExceeded):
            raise
        except Exception:
            log.exception("Chain action %s (%s) is left for a later sweep", action.pk, action.kind)
            return False
        if changed:
            log.info("Chain action %s (%s) is %s", action.pk, action.kind, action.status)
        return changed
