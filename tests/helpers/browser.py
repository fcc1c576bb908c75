"""Chromium for tests of pages: it opens files and records what a page asks for and reports."""

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = "no Chromium on the PATH: apt-get install chromium, and make test finds it"


@dataclass
class Records:
    """What the pages of a browser did.

    Attributes:
        requests: Addresses that were asked for.
        problems: Errors and warnings of the console, exceptions of scripts, and failed requests.
    """

    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def watch(self, page):
        page.on("request", lambda one: self.requests.append(one.url))
        page.on("requestfailed", self._read_failure)
        page.on("pageerror", lambda one: self.problems.append(f"exception: {one}"))
        page.on("console", self._read)

    def _read_failure(self, request):
        # A picture that was still loading when the next page was opened.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url}, {request.failure}")

    def _read(self, message):
        if message.type in ("error", "warning"):
            self.problems.append(f"{message.type}: {message.text}")


def find_chromium():
    """The path of Chromium; without one the test is skipped, or fails where tests must be whole."""
    path = shutil.which("chromium")
    if path is None and os.environ.get("CI") == "true":
        pytest.fail(MISSING)
    if path is None:
        pytest.skip(MISSING)
    return path


@contextmanager
def open_browser(profile):
    """Yields a page of a browser whose profile is an empty folder, and its records."""
    executable = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(profile), executable_path=executable, args=list(ARGUMENTS)
        )
        records = Records()
        page = context.pages[0]
        page.set_default_timeout(20_000)
        records.watch(page)
        yield page, records
        context.close()
