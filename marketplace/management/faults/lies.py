"""A node's answers, made false. Pure. Not here: when (rpc_proxy.py).

A lie that finds nothing to spoil in an answer returns None: the answer passes, and the fault waits for another one.
"""

from collections.abc import Mapping
from typing import Any, Final

WRONG_HASH: Final = "0x" + "bad0" * 16
HEAD_TAGS: Final = frozenset({"latest", "pending"})
Answer = dict[str, Any]


def nonce(answer: Answer, *, by: int) -> Answer | None:
    """Another count of the sender's chain transactions."""
    if not isinstance(answer.get("result"), str):
        return None
    return answer | {"result": hex(max(int(answer["result"], 16) + by, 0))}


def receipt(answer: Answer, *, says: str, transaction_hash: str, head: int) -> Answer | None:
    """`says` is "null"; "success", in a block that there is not, mined or not; or "flip", the other status."""
    found = answer.get("result")
    if says == "null":
        return answer | {"result": None} if found else None
    if says == "success":
        return answer | {
            "result": (found or _invented(transaction_hash, head)) | {"blockHash": WRONG_HASH, "status": "0x1"}
        }
    if says != "flip":
        raise ValueError(f"a receipt says null, success or flip, not {says!r}")
    if not found:
        return None
    return answer | {"result": found | {"status": "0x0" if found["status"] == "0x1" else "0x1"}}


def _invented(transaction_hash: str, head: int) -> dict[str, Any]:
    return {
        "transactionHash": transaction_hash,
        "blockNumber": hex(head),
        "gasUsed": "0x5208",
        "effectiveGasPrice": "0x1",
        "contractAddress": None,
        "logs": [],
    }


def logs(answer: Answer, *, without: int) -> Answer | None:
    """One log less; `without` is its place, -1 the last."""
    found = answer.get("result")
    if not isinstance(found, list) or not found:
        return None
    kept = [*found]
    kept.pop(without if -len(found) <= without < len(found) else -1)
    return answer | {"result": kept}


def asked_as_of(request: Mapping[str, Any], at: int) -> dict[str, Any]:
    """The request as a node understands it whose head is block `at`."""
    method, params = request["method"], list(request.get("params") or [])
    place = {
        "eth_getBlockByNumber": 0,
        "eth_call": 1,
        "eth_estimateGas": 1,
        "eth_getBalance": 1,
        "eth_getCode": 1,
        "eth_getTransactionCount": 1,
    }.get(method)
    if place is not None and len(params) > place and params[place] in HEAD_TAGS:
        params[place] = hex(at)
    if method == "eth_getLogs" and params and "blockHash" not in params[0]:
        to = params[0].get("toBlock", "latest")
        params[0] = params[0] | {"toBlock": hex(at if to in HEAD_TAGS else min(int(to, 16), at))}
        if int(params[0].get("fromBlock", "0x0"), 16) > at:
            params[0] = params[0] | {"fromBlock": params[0]["toBlock"], "topics": [WRONG_HASH]}  # nothing yet
    return {**request, "params": params}


def answered_as_of(request: Mapping[str, Any], answer: Answer, at: int) -> Answer:
    """The answer without what came after block `at`."""
    method, found = request["method"], answer.get("result")
    if method == "eth_blockNumber" and isinstance(found, str):
        return answer | {"result": hex(min(int(found, 16), at))}
    if not isinstance(found, dict):
        return answer
    if method in ("eth_getBlockByNumber", "eth_getBlockByHash") and int(found["number"], 16) > at:
        return answer | {"result": None}
    later = found.get("blockNumber") is not None and int(found["blockNumber"], 16) > at
    if method in ("eth_getTransactionReceipt", "eth_getTransactionByHash") and later:
        return answer | {"result": None}
    return answer
