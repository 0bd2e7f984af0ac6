"""A page in headless Chromium, driven through pipes by the Chrome DevTools Protocol."""

import base64
import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# Seconds; a machine may have much else to do.
PATIENCE = 120
# Chromium reads orders from 3 and answers in 4.
AS_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for end, number in zip(ends, (3, 4)):
    os.dup2(end, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe")


@contextlib.contextmanager
def opened(folder):
    """Give a page of a new browser, whose files are in `folder`."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"no Chromium at {CHROMIUM}")
    (ours_in, theirs_out), (theirs_in, ours_out) = os.pipe(), os.pipe()
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    browser = subprocess.Popen(
        [sys.executable, "-c", AS_3_AND_4, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        page = Page(ours_in, ours_out)
        yield page
        page.close()
        browser.wait(PATIENCE)
    finally:
        browser.kill()
        browser.wait()
        os.close(ours_in)
        os.close(ours_out)


class Page:
    """A tab. What goes wrong in it, and what it asks of others, is noted."""

    def __init__(self, answers, orders):
        self._answers, self._orders, self._number, self._session = answers, orders, 0, None
        self._read = bytearray()
        self.errors, self.requests = [], []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        self._number += 1
        order = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def close(self):
        """End the browser."""
        os.write(self._orders, b'{"id": 0, "method": "Browser.close"}\0')

    def _next(self):
        while b"\0" not in self._read:
            assert select.select([self._answers], [], [], PATIENCE)[0], "Chromium does not answer"
            piece = os.read(self._answers, 1 << 16)
            assert piece, "Chromium has gone"
            self._read += piece
        text, _, self._read = self._read.partition(b"\0")
        event = json.loads(text)
        self._note(event.get("method"), event.get("params"))
        return event

    def _note(self, method, facts):
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(facts["exceptionDetails"])
        elif method == "Log.entryAdded" and facts["entry"]["level"] == "error":
            self.errors.append(facts["entry"]["text"])

    def open(self, path, *, width=1000, height=800, dark=False, script=True):
        """Load a file in a window of a size."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setScriptExecutionDisabled", value=not script)
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.errors.clear()
        self.requests.clear()
        answer = self.send("Page.navigate", url=Path(path).as_uri())
        assert "errorText" not in answer, answer
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def run(self, code):
        """Return the value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, code):
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(code):
            assert time.monotonic() < end, code
            time.sleep(0.02)

    def click(self, path):
        """Click in the middle of what a selector finds, as a mouse does."""
        self.run(f"document.querySelector({json.dumps(path)}).scrollIntoView({{block: 'center'}})")
        box = "(({left, top, width, height}) => [left + width / 2, top + height / 2])"
        x, y = self.run(f"{box}(document.querySelector({json.dumps(path)}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key, code):
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)

    def picture(self, path):
        shot = self.send("Page.captureScreenshot")["data"]
        Path(path).write_bytes(base64.b64decode(shot))
