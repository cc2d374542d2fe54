"""`agentmarket policy`: try a policy before it counts, and change the one of a session."""

from typing import Any

import click

from agentmarket.cli.market import options
from agentmarket.cli.market.exits import CODES, Exit
from agentmarket.cli.market.run import Run, group, market
from agentmarket.cli.market.shown import document, facts, table

_RULES = ("code", "rule", "limit", "spent", "remaining", "would_allow", "available_at", "policy_version")

policy = group("Try a policy before it counts, and change the one of a session.")(lambda: None)


@policy.command(epilog=CODES)
@click.argument("to")
@click.argument("amount")
@options.session
@click.option("--capability", metavar="NAME", help="What of the agent's offers it would buy.")
@click.option("--at", metavar="TIME", help="As at this time instead of now (RFC 3339).")
@options.policy_options
@market
def check(run: Run, to: str, amount: str, session: str | None, **given: Any) -> None:
    """Would a payment of AMOUNT to TO be allowed? Nothing is paid. Exit code 0 says yes, 2 no, 3 too little is left.

    Asked of a session's policy, or of one that you give with the options.
    """
    rules = options.policy_of(given)
    verdict = document(run.client.policy.check(to=to, amount=amount, session=session, policy=rules, **given))
    line = "Allowed." if verdict["allowed"] else f"Denied: {verdict.get('detail') or verdict.get('rule')}"
    run.say(verdict, [line, *facts(verdict, *_RULES)])
    if not verdict["allowed"]:
        raise SystemExit(int(Exit.DRY if verdict.get("code") == "insufficient_funds" else Exit.DENIED))


@policy.command()
@options.session
@click.option("--days", type=click.IntRange(1, 365), default=30, show_default=True, help="How far back.")
@options.policy_options
@market
def backtest(run: Run, session: str | None, days: int, **given: Any) -> None:
    """What would a policy have refused of what was really asked? Nothing changes."""
    rules = options.policy_of(given)
    if rules is None:
        raise click.UsageError("Say the policy to try: --max-per-tx and the other rules, or --policy.")
    told = document(run.client.policy.backtest(policy=rules, session=session, days=days))
    refused = told["refused"]
    line = (
        f"{refused['count']} of {told['decisions']} decisions in {told['days']} days refused: {refused['amount']} USDC."
    )
    run.say(told, [line, *(table(told["by_rule"], ("rule", "count", "amount")) if told["by_rule"] else [])])


@policy.command()
@click.argument("session_id", metavar="SESSION")
@click.option("--history", is_flag=True, help="Every version of it.")
@options.limit
@market
def show(run: Run, session_id: str, history: bool, most: int) -> None:
    """The policy of a session."""
    if history:
        run.tell_all(run.client.sessions.policies(session_id), "version", "created_at", "policy", most=most)
        return
    found = document(run.client.sessions.get(session_id))
    rules = found["policy"]
    shown = {"session_id": found["id"], "policy_version": found.get("policy_version"), "policy": rules}
    run.say(shown, facts(rules, *rules) or ["No rules: only the budget bounds it."])


@policy.command("set")
@click.argument("session_id", metavar="SESSION")
@options.policy_options
@market
def set_(run: Run, session_id: str, **given: Any) -> None:
    """Give a session another policy: the whole of it, as a new version. The payer's key only."""
    rules = options.policy_of(given)
    if rules is None:
        raise click.UsageError("Say the policy: --max-per-tx and the other rules, or --policy ('{}' for none).")
    run.tell(run.client.sessions.change_policy(session_id, rules), "id", "policy_version", "policy")
