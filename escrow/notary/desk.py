"""One question, one answer. Lives here: reading what is asked, every rule in its order, and signing last of all.

The journal is written before a signature is given away. Questions are answered one after the other. Not here: the socket
(server.py), the rules themselves.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from django.db import Error as DatabaseError
from eth_utils.address import is_checksum_address

from escrow import money
from escrow.chain import typed, wire
from escrow.chain.client import Block
from escrow.chain.errors import ChainError, SignerRefused
from escrow.chain.events import BatchSettled
from escrow.chain.keyring import Keyring
from escrow.chain.signer import KeyringError, LocalSigner, Role, TransactionFields
from escrow.notary import batches, rules
from escrow.notary.journal import Journal, Signed
from escrow.notary.rules import Limits

log = logging.getLogger(__name__)

_BYTES: Final = {"providers_hash", "salt"}
_MAX_LEAVES: Final = 50_000
"""Of one batch: five times what settlement nets into one."""


class Malformed(ValueError):
    """A question that means nothing here."""


@dataclass(frozen=True)
class Chain:
    """What the notary asks a node: how far the chain is final, and what was settled by a block."""

    final: Callable[[], Block]
    settled: Callable[[bytes, int, int], bool]
    landed: Callable[[str, int], list[BatchSettled]]
    """The batches that a chain transaction has landed, by its hash, if it was mined by a block."""


@dataclass(frozen=True)
class Desk:
    """The keys, what they may sign, and what they have signed. `clock` gives unix seconds."""

    keys: Keyring
    limits: Limits
    journal: Journal
    chain: Chain
    clock: Callable[[], float]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was asked for, or the rule that refuses it. Never raises: the asker is told as little as it needs."""
        key, asked = str(question.get("key", ""))[:80], str(question.get("ask", ""))[:20]
        try:
            with self.lock:
                return self._answer(key, asked, question)
        except SignerRefused as refusal:
            log.warning("Refused %s by %s (%s): %s", asked, key, refusal.rule, refusal.detail)
            return {"refused": refusal.rule, "detail": refusal.detail}
        except (Malformed, KeyringError, typed.MalformedMessage) as error:
            log.warning("Refused a question without meaning: %s", error)
            return {"refused": "question", "detail": str(error)}
        except (ChainError, DatabaseError) as error:
            log.warning("Cannot look before signing %s by %s: %s", asked, key, type(error).__name__)
            return {"unavailable": f"it cannot look: {type(error).__name__}"}
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing was signed and the next question is answered
            log.error("Could not answer %s by %s: %s", asked, key, type(error).__name__)  # noqa: TRY400 - no values in logs
            return {"unavailable": "it failed"}

    def _answer(self, key: str, asked: str, question: Mapping[str, Any]) -> dict[str, Any]:
        role, signer = self._key(key)
        if asked == "address":
            return {"address": signer.address}
        if asked == "transaction":
            return {"signed": self._transaction(role, signer, _fields(question)).hex()}
        if asked == "typed":
            return {"signed": self._typed(role, signer, question).hex()}
        raise Malformed("ask for address, transaction or typed")

    def _key(self, name: str) -> tuple[Role, LocalSigner]:
        before, colon, payer_id = name.partition(":")
        if before == Role.PAYER and payer_id and colon:
            return Role.PAYER, self.keys.payer(payer_id)
        role, _, shard = name.partition("-")
        if role == Role.RELAYER and (not shard or (shard.isascii() and shard.isdigit() and len(shard) < 5)):
            return Role.RELAYER, self.keys.relayer(int(shard or 0))
        if name not in {Role.AUTHORIZER, Role.ARBITER}:
            raise Malformed("no key has that name")
        return Role(name), self.keys.signer(name)

    def _transaction(self, role: Role, signer: LocalSigner, fields: TransactionFields) -> bytes:
        rules.check_transaction(fields, role=role, address=signer.address, limits=self.limits)
        wei, now, place = fields.gas * fields.max_fee_per_gas, self.clock(), (signer.address, fields.nonce)
        spent = self.journal.gas(now=now, besides=place)
        if spent + wei > self.limits.max_hourly_gas_wei:
            cap = self.limits.max_hourly_gas_wei
            raise SignerRefused("hourly gas", f"{spent} wei of {cap} are spent this hour, and it may cost {wei}")
        self.journal.add_gas(*place, wei, now=now)
        return signer.sign_transaction(fields).raw

    def _typed(self, role: Role, signer: LocalSigner, question: Mapping[str, Any]) -> bytes:
        message = typed.read(_mapping(question, "document"))
        authorizer, arbiter = (self.keys.signer(other).address for other in (Role.AUTHORIZER, Role.ARBITER))
        if role is Role.PAYER:
            message = _explained(message, question)
            rules.check_payer(
                message, address=signer.address, authorizer=authorizer, arbiter=arbiter, limits=self.limits
            )
            rules.check_deadline(_deadline(message), now=self.clock(), limits=self.limits)
        elif role is Role.AUTHORIZER and isinstance(message, typed.Batch):
            self._batch(message, _lines(question), authorizer=authorizer, arbiter=arbiter)
        else:
            raise SignerRefused("message", f"the {role} signs no {message.NAME}")
        return signer.sign_typed(message)

    def _batch(self, message: typed.Batch, lines: list[batches.Line], *, authorizer: str, arbiter: str) -> None:
        rules.check_domain(message, self.limits)
        now = self.clock()
        rules.check_deadline(message.deadline, now=now, limits=self.limits)
        batch = batches.opened(message, lines, max_micros=self.limits.max_batch_micros)
        batches.check(message, batch, lines, authorizer=authorizer, arbiter=arbiter)
        made = Signed(message.pool_id, batch.first_seq, len(batch.records), message.deadline, message.root)
        payments = [line.payment_id.bytes for line in lines]
        if self.journal.knows(message.digest):
            return  # the same again, as after an answer that was lost: the same signature, and it counts once
        self._check_once(made, payments)
        micros = sum(record.amount for record in batch.records)
        spent, cap = self.journal.spent(now=now, besides=made), self.limits.max_hourly_micros
        if spent + micros > cap:
            raise SignerRefused(
                "hourly value",
                f"{money.render(spent)} USDC of {money.render(cap)} are signed this hour; this is {money.render(micros)}",
            )
        self.journal.add_batch(message.digest, made, micros, payments, now=now)

    def _check_once(self, made: Signed, payments: list[bytes]) -> None:
        """Refuse a payment that another batch may still pay, or has paid; one that can never land beside this one may not."""
        others = [other for other in self.journal.with_any_of(payments) if not other.excludes(made)]
        if not others:
            return
        final = self.chain.final()  # its time, not ours: a chain that was halted takes late batches by its own clock
        for other in others:
            if other.deadline >= final.timestamp:
                raise SignerRefused("signed", "a payment of it is in another batch that can still land")
            if self.chain.settled(other.pool_id, other.first_seq, final.number) and not self._gave_way(other, final):
                raise SignerRefused("settled", "a payment of it is in another batch that has landed")

    def _gave_way(self, batch: Signed, final: Block) -> bool:
        """Return whether another batch is on the chain in the place of one, which then can never be there.

        As after a settlement that was rolled back once it was signed. The database says where to look, the chain what is there.
        """
        for transaction_hash in batches.landings(batch.pool_id, batch.first_seq, batch.records):
            for event in self.chain.landed(transaction_hash, final.number):
                there = Signed(event.pool_id, event.first_seq, event.count, 0)
                if batch.root and event.root != batch.root and there.excludes(batch):
                    return True
        return False


def _fields(question: Mapping[str, Any]) -> TransactionFields:
    asked = _mapping(question, "fields")
    numbers = ("chain_id", "nonce", "gas", "max_fee_per_gas", "max_priority_fee_per_gas", "value")
    to, data = asked.get("to"), asked.get("data")
    if set(asked) != {*numbers, "to", "data"} or any(type(asked[name]) is not int for name in numbers):
        raise Malformed("a chain transaction has exactly its eight fields")
    if not isinstance(to, str) or not is_checksum_address(to) or not isinstance(data, str):
        raise Malformed("a chain transaction here has a checksummed address to go to, and bytes")
    return TransactionFields(to=to, data=_hex(data), **{name: asked[name] for name in numbers})


def _lines(question: Mapping[str, Any]) -> list[batches.Line]:
    leaves = question.get("leaves")
    if not isinstance(leaves, list) or not 0 < len(leaves) <= _MAX_LEAVES:
        raise SignerRefused("leaves", "a batch says which payments are in it")
    try:
        lines = [batches.Line(seq, UUID(hex=payment_id), micros) for seq, payment_id, micros in leaves]
    except (TypeError, ValueError, AttributeError):
        raise Malformed("a leaf is a sequence number, a payment's id and an amount") from None
    if any(type(line.seq) is not int or type(line.micros) is not int or line.micros <= 0 for line in lines):
        raise Malformed("a leaf is a sequence number, a payment's id and an amount")
    return lines


def _explained(message: typed.Message, question: Mapping[str, Any]) -> typed.Message:
    """Put what a deposit's nonce was made of back beside it."""
    if not isinstance(message, typed.ReceiveWithAuthorization) or "terms" not in question:
        return message
    said, salt = _mapping(question, "terms"), question.get("salt")
    try:
        read: dict[str, Any] = {name: _hex(said[name]) if name in _BYTES else said[name] for name in said}
        terms = wire.Terms(**read)
        deposit = typed.Deposit(terms, None if salt is None else _hex(salt))
        terms.words()
    except (TypeError, ValueError):
        raise Malformed("those are no terms") from None
    return replace(message, deposit=deposit)


def _deadline(message: typed.Message) -> int:
    if isinstance(message, typed.ReceiveWithAuthorization):
        return message.valid_before
    if isinstance(message, (typed.AllowProviders, typed.Dispute, typed.RequestClose)):
        return message.deadline
    raise SignerRefused("message", f"a {message.NAME} has no deadline")


def _mapping(question: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = question.get(name)
    if not isinstance(found, dict):
        raise Malformed(f"{name} is missing")
    return found


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError):
        raise Malformed("bytes are written in hex digits") from None
