"""What both ledgers are measured with: the arguments of a run, and its clock.

Needs nothing, so that it runs in either environment.
"""

import argparse
import time
from collections.abc import Callable


def arguments(description: str | None) -> argparse.Namespace:
    """Return how many accounts each side has, how long each load lasts in seconds, and how many transfers a batch has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--accounts", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--batch", type=int, required=True)
    return parser.parse_args()


def rate(commit: Callable[[], object], batch: int, seconds: float) -> float:
    """Return how many transfers a second go when one commit after another carries a batch of them."""
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        commit()
        done += batch
    return done / (time.perf_counter() - begun)
