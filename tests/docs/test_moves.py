"""The table of statuses in the architecture's page is the models' own."""

import re
from collections import defaultdict
from pathlib import Path

from django.apps import apps

PAGE = (Path(__file__).parents[2] / "docs/ARCHITECTURE.md").read_text()
TOLD_AS = {"chainaction": "chain action", "webhookendpoint": "webhook"}


def told() -> dict[str, dict[str, set[str]]]:
    """The table: of each thing, what may follow each status that something follows."""
    section = PAGE[PAGE.index("## Statuses and their moves") :].split("\n## ", 2)[0]
    found: dict[str, dict[str, set[str]]] = defaultdict(dict)
    name = ""
    for line in re.findall(r"^\|(?! ---| what).*$", section, re.MULTILINE):
        what, before, after = (cell.strip() for cell in line.strip("|").split("|"))
        name = what or name
        found[name][before.strip("`")] = set(re.findall(r"`(\w+)`", after))
    return dict(found)


def test_the_table_has_every_move_of_every_model_and_no_other() -> None:
    real = {}
    for model in apps.get_models():
        if moves := getattr(model, "MOVES", None):
            name = TOLD_AS.get(model.__name__.lower(), model.__name__.lower())
            real[name] = {str(before): set(map(str, after)) for before, after in moves.items() if after}
    assert told() == real
