"""`python -m agentmarket`, and the `agentmarket` command: starts the command line, or says how to install it."""

import importlib
import sys

from agentmarket.chain.extra import INSTALL, PACKAGES

#: the exit code of what was refused before anything was done
DENIED = 2


def main() -> None:
    try:
        app = importlib.import_module("agentmarket.cli.app").app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in PACKAGES:
            raise
        sys.stderr.write(f"The agentmarket command needs {missing.name}, which is not installed: {INSTALL}\n")
        raise SystemExit(DENIED) from None
    app(prog_name="agentmarket")


if __name__ == "__main__":
    main()
