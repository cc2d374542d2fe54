"""An agent that reviews a code base by hiring others: three paid calls a file, a brief, and a dispute over a bad one.

`review` is what `manage.py demo` runs; `python -m examples.orchestrator` runs it against any market. Which files are
taken is in `files`; what the result holds is in `report`.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path

import agentmarket
from agentmarket import CallFailed, Client, Task
from examples.files import choose, default_path, read, unparsable_file
from examples.findings import SEVERITIES, Finding, SourceFile, read_findings
from examples.report import Paid, Refund, ReviewResult
from examples.specialists import SPECIALISTS

CHECKS = ("lint", "security", "complexity")
AGENTS: Mapping[str, str] = {name: specialist.agent for name, specialist in SPECIALISTS.items()}
#: paid calls under way at once; on two cores more of them end no sooner, and each payment takes longer
AT_ONCE = 2
BUDGET = "25.00"
#: bytes of findings sent for the brief, the worst first: the market accepts 256 KiB in all
MOST_FINDINGS = 200_000
#: seconds for a provider to deliver a brief
PATIENCE = 60.0

Progress = Callable[[str, int, int], None]


async def review(
    *,
    client: Client,
    path: Path | None = None,
    files: int = 70,
    agents: Mapping[str, str] = AGENTS,
    progress: Progress = lambda stage, done, total: None,
    budget: str = BUDGET,
    at_once: int = AT_ONCE,
) -> ReviewResult:
    """Review `files` files under `path`, chosen the same way each time (default: Django's installed source).

    `client` has a payer's key, then a session of `budget` is opened, or a session's key, then that one is spent.
    `progress` gets a stage, and how much of it is done of how much.
    """
    path = default_path() if path is None else path
    chosen = [read(name, path) for name in choose(path, files)]
    session_id, spender = await _session(client, budget, agents)
    run = _Run(spender, agents, progress)
    await run.three_in_a_row(chosen[0])
    await run.check_all(chosen, at_once)
    await run.refunded_call()
    brief = await run.brief(path.name, len(chosen))
    rejected, dispute_id = await run.dispute(path.name)
    session = await spender.sessions.get(session_id)
    return run.result(path, chosen, session, brief, rejected, dispute_id)


class _Run:
    """One review: what was bought so far, and what came of it."""

    def __init__(self, client: Client, agents: Mapping[str, str], progress: Progress) -> None:
        self.client, self.agents, self.progress = client, agents, progress
        self.paid: list[Paid] = []
        self.refunds: list[Refund] = []
        self.findings: list[Finding] = []
        self.three_payments_ms = self.three_calls_ms = 0.0
        #: payments are made one after the other, so that none waits for another at the market; the work overlaps
        self._till = asyncio.Lock()

    async def three_in_a_row(self, file: SourceFile) -> None:
        """The three calls for one file one after the other, to see what a question to three specialists takes."""
        started = time.perf_counter()
        for check in CHECKS:
            await self._call(check, file)
        self.three_calls_ms = (time.perf_counter() - started) * 1000
        self.three_payments_ms = sum(paid.elapsed_ms for paid in self.paid)

    async def check_all(self, files: list[SourceFile], at_once: int) -> None:
        total = len(files) * len(CHECKS)

        async def buy(check: str, file: SourceFile) -> None:
            await self._call(check, file)
            self.progress("calls", len(self.paid), total)

        self.progress("calls", len(self.paid), total)
        await in_turns((partial(buy, check, file) for file in files[1:] for check in CHECKS), at_once)

    async def refunded_call(self) -> None:
        """One call that cannot be served: a file made unparsable on purpose, and it says so."""
        with tempfile.TemporaryDirectory() as folder:
            await self._call("lint", unparsable_file(Path(folder)))
        self.progress("refund", 1, 1)

    async def brief(self, subject: str, files: int) -> Task:
        """Hire the writer with everything that was found; what it delivers is accepted, so its invoice is approved."""
        worst = sorted(self.findings, key=lambda finding: (SEVERITIES.index(finding.severity), finding))
        facts = {"subject": subject, "files": files, "findings": [*_fitting(worst, MOST_FINDINGS)]}
        self.progress("brief", 0, 2)
        task = await self._hire("brief", f"A review brief of {subject}", facts)
        self.progress("brief", 1, 2)
        if not _text(task):
            raise RuntimeError(f"The brief of task {task.id} is empty.")
        accepted = await self.client.tasks.accept(task.id)
        self.progress("brief", 2, 2)
        return accepted

    async def dispute(self, subject: str) -> tuple[Task, str]:
        """Hire the one who delivers nothing, reject it with the reason, and take it to a person."""
        self.progress("dispute", 0, 2)
        task = await self._hire("sloppy", f"A second review brief of {subject}", {"subject": subject, "findings": []})
        self.progress("dispute", 1, 2)
        reason = "The delivered brief is empty." if not _text(task) else "The brief does not cover what was asked."
        rejected = await self.client.tasks.reject(task.id, reason=reason)
        dispute = await self.client.disputes.open(invoice=task.invoice_id, reason=reason)
        self.progress("dispute", 2, 2)
        return rejected, dispute.id

    def result(
        self,
        path: Path,
        files: list[SourceFile],
        session: agentmarket.Session,
        brief: Task,
        rejected: Task,
        dispute_id: str,
    ) -> ReviewResult:
        return ReviewResult(
            path=str(path),
            files=tuple(file.filename for file in files),
            session_id=session.id,
            remaining=session.remaining,
            payments=tuple(self.paid),
            three_payments_ms=self.three_payments_ms,
            three_calls_ms=self.three_calls_ms,
            refunds=tuple(self.refunds),
            findings=tuple(sorted(self.findings)),
            brief=_text(brief),
            brief_task_id=brief.id,
            brief_invoice_id=brief.invoice_id or "",
            rejected_task_id=rejected.id,
            rejected_invoice_id=rejected.invoice_id or "",
            dispute_id=dispute_id,
        )

    async def _call(self, check: str, file: SourceFile) -> None:
        agent, price = self.agents[check], SPECIALISTS[check].price
        # Equal payments are one payment, so it says what it buys: a file that changed is another one.
        bought = {"file": file.filename, "sha256": hashlib.sha256(file.source.encode()).hexdigest()}
        async with self._till:
            sent = await self.client.payment.send(to=agent, amount=price, metadata=bought)
        try:
            called = await self.client.call(
                agent, path="/check", json=file.to_json(), amount=price, payment=sent.payment
            )
        except CallFailed as failed:
            if not failed.refunded:
                raise
            self.refunds.append(Refund(failed.payment.id, agent, price, file.filename, str(failed.problem["detail"])))
            return
        self.paid.append(Paid(called.payment.id, agent, price, file.filename, sent.elapsed * 1000))
        self.findings += read_findings(called.value)

    async def _hire(self, name: str, title: str, facts: Mapping[str, object]) -> Task:
        specialist = SPECIALISTS[name]
        task = await self.client.tasks.post(
            title=title, brief=facts, capability=specialist.capability, budget=specialist.price, agent=self.agents[name]
        )
        return await self.client.tasks.wait(task.id, timeout=PATIENCE)


async def in_turns(jobs: Iterable[Callable[[], Awaitable[None]]], at_once: int) -> None:
    """Run the jobs, `at_once` of them at a time; the first that fails stops the rest."""
    waiting = iter(jobs)

    async def take() -> None:
        for job in waiting:
            await job()

    takers = [asyncio.ensure_future(take()) for _ in range(at_once)]
    try:
        await asyncio.gather(*takers)
    finally:
        for taker in takers:
            taker.cancel()
        await asyncio.gather(*takers, return_exceptions=True)


async def _session(client: Client, budget: str, agents: Mapping[str, str]) -> tuple[str, Client]:
    me = await client.me()
    if me.scope == "session" and me.session_id is not None:
        return me.session_id, client
    dearest = max((specialist.price for specialist in SPECIALISTS.values()), key=Decimal)
    policy = {"max_per_tx": dearest, "allowed_recipients": sorted(set(agents.values()))}
    session = await client.payment.create_session(budget=budget, policy=policy, name="code review")
    return session.id, session.client()


def _fitting(findings: list[Finding], most: int) -> Iterator[dict[str, object]]:
    """As many of the first findings as `most` bytes of JSON hold."""
    for finding in findings:
        document = finding.to_json()
        most -= len(json.dumps(document)) + 1
        if most < 0:
            return
        yield document


def _text(task: Task) -> str:
    return str((task.deliverable or {}).get("markdown", "")).strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.orchestrator", description=__doc__.splitlines()[0])
    parser.add_argument("--path", type=Path, help="the code base (default: Django's installed source)")
    parser.add_argument("--files", type=int, default=70, help="how many files (default: 70)")
    parser.add_argument("--budget", default=BUDGET, help=f"of the session that is opened (default: {BUDGET})")
    parser.add_argument("--out", type=Path, default=Path("review-brief-latest.md"), help="where the brief is written")
    options = parser.parse_args()
    try:
        return asyncio.run(_command(options))
    except (agentmarket.AgentMarketError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _show(stage: str, done: int, total: int) -> None:
    """One line a stage, which counts up for a person who looks on."""
    if done == total or sys.stderr.isatty():
        print(f"\r{stage} {done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


async def _command(options: argparse.Namespace) -> int:
    async with Client() as client:
        result = await review(
            client=client, path=options.path, files=options.files, budget=options.budget, progress=_show
        )
    options.out.write_text(result.brief + "\n", encoding="utf-8")
    print(result.summary())
    print(f"the brief is in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
