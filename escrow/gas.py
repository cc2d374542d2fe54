"""Gas: what sending may cost. Lives here: the price above which things wait, the hour's budget, and a replacement's fees.

All amounts are wei. A price is per unit of gas.
"""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from django.conf import settings
from django.db.models import DecimalField, F, Q, Sum
from django.db.models.functions import Cast, Coalesce

from escrow.chain.answers import Fees
from escrow.models import Attempt, ChainAction

Kind = ChainAction.Kind

GWEI: Final = 10**9
ETHER: Final = 10**18
TRANSACTION_GAS_CAP: Final = 16_777_216
"""No chain transaction may ask for more (EIP-7825)."""
CANCEL_GAS: Final = 21_000
"""Of an empty chain transaction, which only uses a nonce up."""
BUMP_PERCENT: Final = 13
"""A replacement must pay 10 % more on both fees at most nodes, 12.5 % at some."""
MAX_REPLACEMENTS: Final = 12
"""1.13 to the twelfth is 4.3 times the first fee: more than that is a person's decision."""
CAN_WAIT: Final = (Kind.SETTLE, Kind.WITHDRAW, Kind.WITHDRAW_FEES)
"""Nobody loses by these being late, as long as the pool has not ended; everything else has somebody waiting for it."""
NEAR_THE_END: Final = timedelta(days=1)
"""What a pool owes lands at any price once its end is so near: past it the payer takes what is free."""


def price(fees: Fees) -> int:
    """Return what a unit of gas is likely to cost now; `max_fee` is only what it may at most."""
    return fees.base_fee + fees.tip


def too_dear(action: ChainAction, fees: Fees, now: datetime) -> str:
    """Return why an action should wait for cheaper gas; nothing when it should not."""
    ceiling = settings.GAS_PRICE_CEILING_GWEI * GWEI
    if action.kind not in CAN_WAIT or price(fees) <= ceiling or _runs_out(action, now):
        return ""
    return f"Gas costs {price(fees) / GWEI:.3f} gwei; it waits until that is at most {settings.GAS_PRICE_CEILING_GWEI}."


def over_budget(cost_wei: int, now: datetime) -> str:
    """Return why a cost does not fit into what is left of this hour's budget; nothing when it does."""
    if not settings.GAS_BUDGET_USD_PER_HOUR:
        return ""
    budget = settings.GAS_BUDGET_USD_PER_HOUR * ETHER // settings.ETH_USD
    spent = spent_wei(since=now - timedelta(hours=1))
    if spent + cost_wei <= budget:
        return ""
    return (
        f"The gas of the last hour cost {spent / ETHER:.6f} ETH, and this would cost {cost_wei / ETHER:.6f}: "
        f"more than {settings.GAS_BUDGET_USD_PER_HOUR} dollars in all."
    )


def spent_wei(*, since: datetime) -> int:
    """Return what was spent on gas since a moment, with what is in flight at the price expected when it was signed."""
    recent = ChainAction.objects.filter(gas_price_wei__isnull=False)
    recent = recent.filter(Q(mined_at__gte=since) | Q(mined_at=None, status__in=ChainAction.IN_FLIGHT))
    wide: DecimalField[Decimal, Decimal] = DecimalField(max_digits=40, decimal_places=0)  # a product may pass 63 bits
    cost = Cast(Coalesce(F("gas_used"), F("gas_limit")), wide) * Cast(F("gas_price_wei"), wide)
    return int(recent.aggregate(wei=Sum(cost, output_field=wide))["wei"] or 0)


def bumped(last: Attempt, market: Fees) -> Fees:
    """Return the fees of a replacement: the market's, and on both at least what makes a node take it for the last one."""
    return Fees(
        base_fee=market.base_fee,
        tip=max(market.tip, last.tip_wei + last.tip_wei * BUMP_PERCENT // 100 + 1),
        max_fee=max(market.max_fee, last.max_fee_wei + last.max_fee_wei * BUMP_PERCENT // 100 + 1),
    )


def least(last: Attempt) -> Fees:
    """Return what a replacement offers at least, whatever the market asks for."""
    return bumped(last, Fees(base_fee=0, tip=0, max_fee=0))


def past_cap(fees: Fees, *, tried: int) -> bool:
    """Return whether a replacement, after so many attempts, would offer more than anybody but a person may."""
    return tried > MAX_REPLACEMENTS or fees.max_fee > settings.GAS_PRICE_CAP_GWEI * GWEI


def _runs_out(action: ChainAction, now: datetime) -> bool:
    soon = now + NEAR_THE_END
    ends = Q(pool__expires_at__lte=soon) | Q(pool__reclaimable_at__lte=soon)
    return action.batches.filter(ends).exists()
