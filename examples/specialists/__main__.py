"""Run specialists: `python -m examples.specialists lint security …` (none named: all five), each on its own port.

Several share one Python, each with its own agent, key and URL. For each one line of JSON is printed when all of them
answer. The environment says who they are: AGENTMARKET_URL, and for each AGENTMARKET_API_KEY_<NAME> (or
AGENTMARKET_API_KEY for all) and AGENTMARKET_AGENT_<NAME> (or the uri in `SPECIALISTS`).
"""

import argparse
import asyncio
import importlib
import json
import os
import sys
from dataclasses import asdict, replace

from agentmarket import AgentMarketError, Seller, serving
from examples.specialists import SPECIALISTS, Specialist


def main() -> int:
    options = _options()
    try:
        chosen = [_named(name) for name in options.names]
        sellers = [_seller(specialist) for specialist in chosen]
    except AgentMarketError as error:
        print(error, file=sys.stderr)
        return 2
    listeners = [
        serving.Listener(seller.app, options.host, options.port + place if options.port else 0)
        for place, seller in enumerate(sellers)
    ]

    def ready(urls: list[str]) -> None:
        for specialist, url in zip(chosen, urls, strict=True):
            print(json.dumps({**asdict(specialist), "url": url, "pid": os.getpid()}), flush=True)

    asyncio.run(serving.serve(listeners, ready=ready))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.specialists", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SPECIALISTS))
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="of the first one, the next follow; 0 takes free ones")
    options = parser.parse_args()
    options.names = options.names or [*SPECIALISTS]
    unknown = [name for name in options.names if name not in SPECIALISTS]
    if unknown:
        parser.error(f"no such specialist: {', '.join(unknown)}; there are {', '.join(SPECIALISTS)}")
    return options


def _named(name: str) -> Specialist:
    specialist = SPECIALISTS[name]
    return replace(specialist, agent=os.environ.get(f"AGENTMARKET_AGENT_{name.upper()}", specialist.agent))


def _seller(specialist: Specialist) -> Seller:
    """Only the tools of those that were named are loaded."""
    key = os.environ.get(f"AGENTMARKET_API_KEY_{specialist.name.upper()}")
    seller = Seller(key, agent=specialist.agent)
    importlib.import_module(f"examples.specialists.{specialist.name}").sell(seller)
    return seller


if __name__ == "__main__":
    sys.exit(main())
