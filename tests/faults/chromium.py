"""A real browser for a test: Chromium without a screen, driven over a pipe in its own protocol. Nothing is installed for it."""

import contextlib
import json
import os
import select
import shutil
import subprocess
from itertools import count
from pathlib import Path
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
PATIENCE = 20
LOOK = 5
_POLL = """new Promise((done, fail) => {
    const end = Date.now() + %d;
    const look = () => { if (%s) done(true); else if (Date.now() > end) fail(Error("never")); else setTimeout(look, 20); };
    look();
})"""

_CENTRE = """(() => {
    const it = document.querySelector(%s);
    it.scrollIntoView();
    const box = it.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
})()"""


class Gone(Exception):
    """The browser could not do it: mostly because the page went away meanwhile."""


class Chromium:
    """The program. Each `page` has cookies of its own, as another person's browser has."""

    def __init__(self, profile: Path) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def become() -> None:
            os.dup2(to_read, 13)
            os.dup2(to_write, 14)
            os.dup2(13, 3)  # where it listens
            os.dup2(14, 4)  # where it answers

        assert PROGRAM is not None
        self._process = subprocess.Popen(
            [PROGRAM, *OPTIONS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=become,  # noqa: PLW1509 - four calls, no locks
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._numbers, self._rest = count(1), b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def ask(self, method: str, session: str = "", **params: Any) -> Any:
        """Send a command and return its result; what is told meanwhile is passed over."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                # A page that goes away may take the answer with it.
                if not select.select([self._read], [], [], PATIENCE)[0]:
                    raise Gone(f"{method}: no answer")
                received = os.read(self._read, 1 << 16)
                assert received, "the browser is gone"
                self._rest += received
            told, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(told)
            if answer.get("id") == number:
                if "error" in answer:
                    raise Gone(f"{method}: {answer['error']}")
                return answer["result"]

    def page(self, url: str, **cookies: str) -> "Page":
        """Open a window with these cookies and nobody else's."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        found = Page(self, session)
        for name, value in cookies.items():
            found.ask("Network.setCookie", name=name, value=value, url=url)
        found.go(url)
        return found


class Page:
    """A window."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser, self._session = browser, session

    def ask(self, method: str, **params: Any) -> Any:
        return self._browser.ask(method, self._session, **params)

    def run(self, script: str) -> Any:
        """Run a script in the page and return what it says."""
        told = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, (told["result"].get("description"), script)
        return told["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until something is so. A page that goes away meanwhile is asked again."""
        for _ in range(20):
            with contextlib.suppress(Gone):
                told = self.ask("Runtime.evaluate", expression=_POLL % (LOOK * 1_000, script), awaitPromise=True)
                if "exceptionDetails" not in told:
                    return
        raise AssertionError(f"it never was so: {script}")

    def go(self, url: str) -> None:
        self.ask("Page.navigate", url=url)
        self.until(f"document.readyState == 'complete' && location.href.startsWith({json.dumps(url)})")

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            self.run(f"document.getElementsByName({json.dumps(name)})[0].value = {json.dumps(value)}")

    def click(self, selector: str, times: int = 1) -> None:
        """Click as a hand does: twice is a double click."""
        x, y = self.run(_CENTRE % json.dumps(selector))
        for number in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=number)

    def back(self) -> None:
        """Go back in the history, and wait until the page before is there."""
        here = self.run("history.length && (window.left = true)")
        assert here
        told = self.ask("Page.getNavigationHistory")
        self.ask("Page.navigateToHistoryEntry", entryId=told["entries"][told["currentIndex"] - 1]["id"])
        self.until("!window.left && document.readyState == 'complete'")
