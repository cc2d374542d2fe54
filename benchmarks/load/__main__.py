"""`python -m benchmarks.load`: a plan as JSON on standard input, what was seen as JSON on standard output."""

import asyncio
import gc
import json
import sys

import uvloop

from benchmarks.load.driver import Driver
from benchmarks.load.plan import BadPlan, Plan


async def drive(plan: Plan) -> dict[str, object]:
    """Run a plan to its end."""
    driver = Driver(plan, asyncio.get_running_loop())
    await driver.run()
    return driver.result()


def main() -> int:
    """Read, run, write. Exit 2 for a plan that cannot be run, 1 when nothing answers."""
    try:
        plan = Plan.read(sys.stdin.read())
    except BadPlan as error:
        print(f"not a plan: {error}", file=sys.stderr)
        return 2
    gc.disable()  # a run is short and keeps no cycles; a collection in it would be measured as the server's
    try:
        result = uvloop.run(drive(plan))
    except ConnectionError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
