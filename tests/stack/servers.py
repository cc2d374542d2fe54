"""A program for the tests: starts the three servers as the demo does, says in one line of JSON what runs, and waits."""

import json
import signal
import sys

from marketplace.management.stack import anvil, postgres, signals, valkey
from marketplace.management.stack.home import Home
from marketplace.management.stack.supervisor import Supervisor


def main() -> None:
    with signals.orderly_end(), Home() as home:
        supervisor = Supervisor(home)
        try:
            urls = [postgres.start(supervisor), valkey.start(supervisor), anvil.start(supervisor)]
            children = {name: child.process.pid for name, child in supervisor.children.items()}
            print(json.dumps({"home": str(home.path), "guardian": home.guardian, "children": children, "urls": urls}))
            sys.stdout.flush()
            signal.pause()
        finally:
            signals.hold_off()
            supervisor.close()


if __name__ == "__main__":
    main()
