"""What goes wrong on the way to a chain. Part of the package's one tree of errors, and importable without the extra.

AgentMarketError
  MissingExtra              `agentmarket[chain]` is not installed
  RpcUnavailable            the node gives no usable answer: nothing is known
  RpcRefused                the node answered with an error of its own
    Reverted                the contract refuses: `name`, `arguments`
  NotAContract              no code at the address, or code of something else
  Denied                    refused here, before anything was sent
  SendFailed                a transaction that was sent failed on chain: `transaction`
  SendUnknown               a transaction was sent, and no answer says what became of it: `transaction`
  ReceiptRefused            a receipt is not proven; `step` says which check failed
    ReceiptMismatch         the receipt contradicts itself, or is not what the caller expects
    WrongChain              the caller's node is on another chain
    NotOnChain              the contract has no such batch
    TransactionReverted     the named transaction failed
    NotCredited             the batch did not credit this provider with that much
    NotFinal                fewer confirmations than the caller wants
"""

from typing import ClassVar

from agentmarket.errors import AgentMarketError, Unavailable


class MissingExtra(AgentMarketError):
    """What was asked for needs packages that the base package does not bring."""

    default_code = "missing_extra"


class RpcUnavailable(Unavailable):
    """The node could not be reached, or its answer is not one."""

    default_code = "rpc_unavailable"


class RpcRefused(AgentMarketError):
    """A JSON-RPC error object. `rpc_code` and `data` are the node's own."""

    default_code = "rpc_refused"

    def __init__(self, detail: str, *, rpc_code: int | None = None, data: str | None = None) -> None:
        super().__init__(detail)
        self.rpc_code = rpc_code
        self.data = data


class Reverted(RpcRefused):
    """The contract refuses, with one of its named errors (or a name that this version does not know)."""

    default_code = "reverted"

    def __init__(self, detail: str, *, name: str, arguments: dict[str, object]) -> None:
        super().__init__(detail)
        self.name = name
        self.arguments = arguments


class NotAContract(AgentMarketError):
    default_code = "not_a_contract"


class Denied(AgentMarketError):
    """Refused here, before anything was sent: no money moved."""

    default_code = "denied"


class SendFailed(AgentMarketError):
    """A transaction failed on chain. It cost gas and moved no money."""

    default_code = "send_failed"

    def __init__(self, detail: str, *, transaction: str) -> None:
        super().__init__(detail)
        self.transaction = transaction


class SendUnknown(AgentMarketError):
    """A signed transaction left, and no receipt came. Look `transaction` up before anything is sent again."""

    default_code = "outcome_unknown"

    def __init__(self, detail: str, *, transaction: str) -> None:
        super().__init__(detail, outcome="unknown")
        self.transaction = transaction


class ReceiptRefused(AgentMarketError):
    """A payment's receipt is not proven. `step` names the check that failed; nothing after it was looked at."""

    default_code = "receipt_refused"
    default_step: ClassVar[str] = ""

    def __init__(self, detail: str, *, step: str = "") -> None:
        super().__init__(detail)
        self.step = step or self.default_step


class ReceiptMismatch(ReceiptRefused):
    default_code = "receipt_mismatch"


class WrongChain(ReceiptRefused):
    default_code = "wrong_chain"
    default_step = "chain"


class NotOnChain(ReceiptRefused):
    default_code = "not_on_chain"
    default_step = "batch"


class TransactionReverted(ReceiptRefused):
    default_code = "transaction_reverted"
    default_step = "transaction"


class NotCredited(ReceiptRefused):
    default_code = "not_credited"
    default_step = "credit"


class NotFinal(ReceiptRefused):
    default_code = "not_final"
    default_step = "confirmations"
