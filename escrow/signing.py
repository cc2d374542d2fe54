"""Calldata. Lives here: turning a chain action into the bytes that carry it out, signed by the role that must sign.

Each role signs only what is its own: the payer terms, deposits, allow-lists, disputes and the end; the authorizer batches.
Sending is the relay's, and so are nonces. Keys never leave the keyring.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Final
from uuid import UUID

from django.conf import settings

from escrow import dispatch, disputes, ledger, pools, receipts
from escrow.chain import contract, typed, wire
from escrow.chain.client import ChainClient
from escrow.chain.contract import BudgetPool, Token
from escrow.chain.signer import Role, Signer, Signers
from escrow.chain.wire import Domain, Terms
from escrow.models import Batch, ChainAction, Dispute, Party, Pool, Reason, Transfer

Kind = ChainAction.Kind

SIGNATURE_LIFE: Final = timedelta(hours=1)
"""How long a payer's signature may be used: longer than a relay is likely to be held up, shorter than a key's compromise."""
RECORD_CAP: Final = wire.MAX_AMOUNT
WINDOW_CAP: Final = 2**56 - 1
WINDOW_SECONDS: Final = 24 * 3600
"""The contract's caps are left open: the session's policy is the narrower limit, checked before there is a debt."""


@dataclass(frozen=True)
class Signatory:
    """What signing needs: the chain to read domains from, and the keys."""

    client: ChainClient
    keyring: Signers

    def domain(self) -> Domain:
        """Return the contract's EIP-712 domain."""
        return wire.pool_domain(settings.CHAIN_ID, settings.ESCROW_ADDRESS)

    @cached_property
    def token_domain(self) -> Domain:
        """The token's EIP-712 domain, as the token itself names it, asked once: it differs from chain to chain."""
        return Token(self.client, BudgetPool(self.client, settings.ESCROW_ADDRESS).token()).domain()


def target(kind: str) -> str:
    """Return the contract that a kind of action calls: the test token to mint, the escrow for all else."""
    return settings.USDC_ADDRESS if kind == Kind.MINT else settings.ESCROW_ADDRESS


def calldata(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    """Return the bytes to send to `target` for an action. Raises ChainError when the chain cannot be asked."""
    return _BUILDERS[Kind(action.kind)](action, by, now)


def moot(action: ChainAction) -> bool:
    """Return whether nothing is left to do: its batches have landed, were voided or left it, its pool is past opening, or
    somebody else has withdrawn."""
    if action.kind == Kind.WITHDRAW:
        account = ledger.credited(_pool(action), Party.objects.get(pk=_subject(action)))
        done = Transfer.objects.filter(sender=account, reason=Reason.PAYOUT).count()
        return done > int(action.params["payouts_before"])
    if action.kind == Kind.SETTLE:
        return not action.batches.filter(status=Batch.Status.SIGNED).exists()
    return action.kind == Kind.OPEN_POOL and _pool(action).status != Pool.Status.OPENING


def terms_of(pool: Pool, by: Signatory) -> Terms:
    """Return the terms of a pool, bound to it the first time they are asked for."""
    if pool.terms is None:
        terms = _first_terms(pool, by)
        key = wire.pool_id(by.domain(), terms)
        document = {**terms.__dict__, "providers_hash": terms.providers_hash.hex(), "salt": terms.salt.hex()}
        pools.bind(pool, terms=document, pool_key=f"0x{key.hex()}", payer_address=terms.payer)
    bound = dict(pool.terms or {})
    for name in ("providers_hash", "salt"):
        bound[name] = bytes.fromhex(bound[name])
    return Terms(**bound)


def _first_terms(pool: Pool, by: Signatory) -> Terms:
    return Terms(
        payer=by.keyring.payer(str(pool.payer_id)).address,
        authorizer=by.keyring.signer(Role.AUTHORIZER).address,
        arbiter=by.keyring.signer(Role.ARBITER).address,
        expiry=_seconds(pool.expires_at),
        close_delay=pool.close_delay_seconds,
        per_record_cap=RECORD_CAP,
        window_cap=WINDOW_CAP,
        window_length=WINDOW_SECONDS,
        dispute_window=pool.dispute_window_seconds,
        fee_bps=pool.fee_bps,
        providers_hash=wire.providers_hash(_initial(pool)),
        salt=bytes.fromhex(pool.salt[2:]),
    )


def _open_pool(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    pool = _pool(action)
    terms = terms_of(pool, by)
    until = _seconds(now + SIGNATURE_LIFE)
    signature = _authorize(pool, by, pool.requested_micros, until)
    return contract.open_pool(terms, _initial(pool), pool.requested_micros, 0, until, signature)


def _top_up(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    pool, value, salt = _pool(action), int(action.params["amount_micros"]), bytes.fromhex(action.params["salt"][2:])
    until = _seconds(now + SIGNATURE_LIFE)
    signature = _authorize(pool, by, value, until, salt=salt)
    return contract.top_up(pool.key, value, _payer(pool, by).address, 0, until, salt, signature)


def _allow_providers(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    pool, until = _pool(action), _seconds(now + SIGNATURE_LIFE)
    parties = Party.objects.filter(pk__in=action.params["parties"]).order_by("pk")
    addresses = [party.address for party in parties]
    nonce = UUID(action.params["nonce"]).bytes.ljust(32, b"\0")
    message = typed.AllowProviders(by.domain(), pool.key, tuple(addresses), nonce, until)
    return contract.allow_providers_with_sig(pool.key, addresses, nonce, until, _payer(pool, by).sign_typed(message))


def _settle(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    batches = dispatch.carried(action)
    if len(batches) == 1:
        return receipts.calldata(batches[0])
    return contract.settle_many([receipts.arguments(batch) for batch in batches])


def _withdraw(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    return contract.withdraw(_pool(action).key, Party.objects.get(pk=_subject(action)).address)


def _withdraw_fees(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    return contract.withdraw_fees()


def _dispute(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    pool, (dispute, address, ref) = _pool(action), _disputed(action)
    until = _seconds(now + SIGNATURE_LIFE)
    message = typed.Dispute(by.domain(), pool.key, address, dispute.amount_micros, ref, until)
    signature = _payer(pool, by).sign_typed(message)
    return contract.dispute_with_sig(pool.key, address, dispute.amount_micros, ref, until, signature)


def _resolve(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    dispute, address, ref = _disputed(action)
    if dispute.to_provider_micros is None:
        raise ValueError(f"{dispute} has no ruling")
    return contract.resolve(terms_of(_pool(action), by), address, ref, dispute.to_provider_micros)


def _resolve_by_timeout(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    _, address, ref = _disputed(action)
    return contract.resolve_by_timeout(_pool(action).key, address, ref)


def _request_close(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    pool, until = _pool(action), _seconds(now + SIGNATURE_LIFE)
    message = typed.RequestClose(by.domain(), pool.key, until)
    return contract.request_close_with_sig(pool.key, until, _payer(pool, by).sign_typed(message))


def _reclaim(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    return contract.reclaim(_pool(action).key)


def _mint(action: ChainAction, by: Signatory, now: datetime) -> bytes:
    payer = by.keyring.payer(str(_subject(action)))
    return contract.mint_test_usdc(payer.address, int(action.params["amount_micros"]))


_BUILDERS: Final[dict[Kind, Callable[[ChainAction, Signatory, datetime], bytes]]] = {
    Kind.MINT: _mint,
    Kind.OPEN_POOL: _open_pool,
    Kind.TOP_UP: _top_up,
    Kind.ALLOW_PROVIDERS: _allow_providers,
    Kind.SETTLE: _settle,
    Kind.WITHDRAW: _withdraw,
    Kind.WITHDRAW_FEES: _withdraw_fees,
    Kind.DISPUTE: _dispute,
    Kind.RESOLVE: _resolve,
    Kind.RESOLVE_BY_TIMEOUT: _resolve_by_timeout,
    Kind.REQUEST_CLOSE: _request_close,
    Kind.RECLAIM: _reclaim,
}


def _authorize(pool: Pool, by: Signatory, value: int, until: int, *, salt: bytes | None = None) -> bytes:
    """Let the contract pull a deposit. Its nonce is what binds it: the pool's id to open it, its id and a salt to top it up."""
    payer = _payer(pool, by)
    message = typed.ReceiveWithAuthorization(
        by.token_domain,
        from_=payer.address,
        to=settings.ESCROW_ADDRESS,
        value=value,
        valid_after=0,
        valid_before=until,
        nonce=pool.key if salt is None else typed.TopUp(by.domain(), pool.key, salt).digest,
        deposit=typed.Deposit(terms_of(pool, by), salt),
    )
    return payer.sign_typed(message)


def _disputed(action: ChainAction) -> tuple[Dispute, str, bytes]:
    dispute = Dispute.objects.select_related("party").get(pk=_subject(action))
    return dispute, dispute.party.address, bytes.fromhex(disputes.reference(dispute.pk)[2:])


def _initial(pool: Pool) -> list[str]:
    return list(pool.providers.filter(initial=True).order_by("pk").values_list("party__address", flat=True))


def _payer(pool: Pool, by: Signatory) -> Signer:
    return by.keyring.payer(str(pool.payer_id))


def _subject(action: ChainAction) -> UUID:
    if action.subject_id is None:
        raise ValueError(f"{action} names no subject")
    return action.subject_id


def _pool(action: ChainAction) -> Pool:
    if action.pool is None:
        raise ValueError(f"{action} names no pool")
    return action.pool


def _seconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp())
