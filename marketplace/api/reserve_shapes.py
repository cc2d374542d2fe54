"""What callers get of reserves: shapes for what the contract holds against what is owed, and for a proof of one's own debts."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from marketplace.api.chain_shapes import Hash, Micros
from marketplace.api.fields import Amount, Id, IdIn, Moment, Shape, SignedAmount
from marketplace.api.queries import PageQuery
from marketplace.api.shapes import USDC, Page

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
OwedAs = Literal["available", "in_sessions", "held", "payable", "settling", "credited", "disputed", "fees"]


class Liabilities(Shape):
    """What is owed, by class. The first three are the payers', the next three the providers'; who gets what is in dispute
    is not decided yet."""

    available: Annotated[Amount, Field(description="In pools, in no session.")]
    in_sessions: Annotated[Amount, Field(description="In sessions, not spent.")]
    held: Annotated[Amount, Field(description="Set aside for a call or a task.")]
    payable: Annotated[Amount, Field(description="Owed to providers, in no batch yet.")]
    settling: Annotated[Amount, Field(description="In signed batches that have not landed.")]
    credited: Annotated[Amount, Field(description="Landed, and not paid out yet.")]
    disputed: Amount
    fees: Annotated[Amount, Field(description="The market's own.")]


class Reserves(Shape):
    """What the contract holds against all that is owed, at one final block. `difference` is `held` less `liabilities_total`:
    the sum of `in_flight`, `others`, `surplus` and of what nothing explains, which is zero unless the verdict says so."""

    id: Id
    at: Moment
    chain_id: int
    contract: Annotated[str, Field(description="The address of the contract.")]
    token: Annotated[
        str | None, Field(description="The address of the token: `balanceOf(contract)` at the block is `held`.")
    ]
    block: int
    block_hash: Hash
    currency: USDC = "USDC"
    held: Annotated[Amount, Field(description="The token's balance of the contract at the block; ask any node for it.")]
    liabilities: Liabilities
    liabilities_total: Annotated[Amount, Field(description="The sum that the root commits to.")]
    difference: SignedAmount
    in_flight: Annotated[
        SignedAmount, Field(description="Logs between the ledger and the block, such as a deposit taken early.")
    ]
    others: Annotated[Amount, Field(description="In pools that were opened past this service.")]
    surplus: Annotated[SignedAmount, Field(description="Given to the contract by somebody, and owed to nobody.")]
    verdict: Annotated[
        Literal["equal", "explained", "unexplained"],
        Field(description="Whether every comparison of the books with the chain held, not only this sum."),
    ]
    unexplained: Annotated[int, Field(description="Comparisons that did not hold, and that nothing explains.")]
    root: Annotated[Digest, Field(description="Of the Merkle sum tree over every single debt.")]
    duration_ms: int


class ReservesPage(Page[Reserves]): ...


class ReservesQuery(PageQuery):
    """A page of earlier reports."""


class ProofQuery(Shape):
    pool_id: Annotated[IdIn | None, Field(description="Only what is owed in this pool.")] = None


class Sibling(Shape):
    """The node beside, from the leaf up: on which side it stands, its hash, and what is owed below it."""

    side: Literal["left", "right"]
    hash: Digest
    micros: Micros


class Inclusion(Shape):
    """One debt and its way to the root. The leaf is sha256 of
    `agentmarket-reserves-leaf-1|salt|class|pool|party|micros`; a node of `agentmarket-reserves-node-1|left hash|left
    micros|right hash|right micros`. Fold `proof` into the leaf: the hash must be `root`, the sum `root_micros`."""

    owed_as: Annotated[OwedAs, Field(description="The class in the leaf.")]
    pool_id: Annotated[str, Field(description="As in the leaf; empty for none.")]
    party_id: Annotated[str, Field(description="As in the leaf; empty for what is the pool's payer's.")]
    amount: Amount
    micros: Micros
    salt: Annotated[
        Digest, Field(description="Known to you and to this service: so that others cannot guess the leaf.")
    ]
    proof: list[Sibling]


class ReservesProof(Shape):
    """Proof that what is owed to you is in the sum that is published: compare `root` and `root_micros` with those of
    `GET /v1/reserves`, as others see them, and `micros` with what you know is yours."""

    report_id: Id
    at: Moment
    block: int
    root: Digest
    root_micros: Micros
    items: Annotated[list[Inclusion], Field(description="The largest first, at most 500; `pool_id` narrows them.")]
