"""`make promises`: run the tests that prove the promises, once, and say of each promise whether it is proved.

`--json` prints one object on stdout; what pytest says goes to stderr. `--write` brings docs/PROMISES.md up to the marks
instead.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.promises import page, verdict
from tests.promises.marks import ROOT, marked


def run(wanted: list[str]) -> dict[str, Any]:
    """Run the marked tests by pytest; return what became of every case."""
    files = sorted({test.partition("::")[0] for test in wanted})
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "cases.json"
        command = [sys.executable, "-m", "pytest", "-m", "promise", "-p", "tests.promises.record"]
        subprocess.run([*command, "--promises-report", str(report), *files], cwd=ROOT, stdout=sys.stderr, check=False)
        return dict(json.loads(report.read_text(encoding="utf-8"))) if report.exists() else {}


def show(outcomes: list[verdict.Outcome]) -> None:
    """Print a line for each promise, and under one that is not proved what is wrong."""
    words = {part.number: part.promise for part in page.parts(page.PAGE.read_text(encoding="utf-8"))}
    for one in outcomes:
        tests = f"{len(one.tests)} test" + ("s" if len(one.tests) != 1 else "")
        says = "proved" if one.is_proved else "BROKEN"
        print(f"{one.number:>3} {says}  {one.seconds:5.1f} s  {tests:>8}  {words.get(one.number, '')}")
        print(f"{'':29}{', '.join(test.rpartition('::')[2] for test in one.tests)}")
        for line in (one.figure, *one.wrong):
            if line:
                print(f"{'':29}{line}")


def main() -> int:
    """Run, print, and return 0 only when every promise is proved."""
    parser = argparse.ArgumentParser(prog="python -m tests.promises", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--write", action="store_true", help="write the tests' names into docs/PROMISES.md, run nothing"
    )
    given = parser.parse_args()
    if given.write:
        page.write(marked())
        return 0
    begun = time.monotonic()
    outcomes = verdict.of(marked(), run([test for tests in marked().values() for test in tests]))
    proved, total = sum(one.is_proved for one in outcomes), len(outcomes)
    if given.json:
        by_promise = {one.number: one.to_document() for one in outcomes}
        print(json.dumps({"proved": proved, "total": total, "by_promise": by_promise}))
    else:
        show(outcomes)
        print(f"{proved} of {total} promises proved ({time.monotonic() - begun:.0f} s)")
    return 0 if proved == total else 1


if __name__ == "__main__":
    sys.exit(main())
