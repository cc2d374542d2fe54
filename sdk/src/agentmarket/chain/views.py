"""What a node tells of the contract, read by name: answers of its views, and its events among raw logs."""

from collections.abc import Iterable, Mapping
from typing import Any

from agentmarket.chain import abi
from agentmarket.chain.errors import NotAContract, RpcUnavailable
from agentmarket.chain.rpc import Rpc


def view(rpc: Rpc, contract: str, name: str, *arguments: Any) -> dict[str, Any]:
    """What a view answers now, by field. Raises Reverted, and NotAContract for an answer that is of something else."""
    returned = rpc.call(contract, abi.call(name, *arguments))
    try:
        return abi.answer(name, returned)
    except ValueError:
        raise NotAContract(f"{contract} answers as no escrow of this version does: check the contract.") from None


def events(raw: Iterable[Mapping[str, Any]], contract: str) -> list[abi.Log]:
    """The events of this contract: any other may emit the same bytes. Raises RpcUnavailable for logs that are none."""
    ours = [log for log in raw if log["address"].lower() == contract.lower()]
    try:
        return [log for log in map(abi.log, ours) if log is not None]
    except (ValueError, OverflowError) as error:
        raise RpcUnavailable(f"The node tells of an event that the contract does not have: {error}.") from None
