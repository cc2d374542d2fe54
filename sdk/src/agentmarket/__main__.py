"""`python -m agentmarket`, and the `agentmarket` command."""

from agentmarket.cli.app import app


def main() -> None:
    app(prog_name="agentmarket")


if __name__ == "__main__":
    main()
