"""One Chromium for all browser tests: no network, and anything it complains about fails the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = "window.stratoscopeReady === true"
Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("chromium is not on PATH: `make test` installs it, or `apt-get install chromium`.", pytrace=False)
    # Chromium keeps a socket in the temporary folder, whose name has at most 108 bytes
    os.environ["TMPDIR"], former = "/tmp", os.environ.get("TMPDIR")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield running
        running.close()
    os.environ.pop("TMPDIR") if former is None else os.environ.__setitem__("TMPDIR", former)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    with _watched_pages(browser) as open_:
        yield open_


@pytest.fixture(scope="module")
def open_page_once(browser: Browser) -> Iterator[Open]:
    """`open_page` for pages that the tests of a module share: loading takes longer than what is done with them."""
    with _watched_pages(browser) as open_:
        yield open_


@contextmanager
def _watched_pages(browser: Browser) -> Iterator[Open]:
    """Opens files and waits until they are drawn; fails in the end if one asked for anything or reported an error."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_(path: Path, *, width: int = 1280, height: int = 720, dark: bool = False) -> Page:
        page = browser.new_page(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        pages.append(page)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: outside(request.url) and complaints.append(request.url))
        page.add_init_script("window.PlotlyConfig = { plotGlPixelRatio: 1 }")  # a quarter of the pixels
        page.route(outside, lambda route: route.abort())
        page.goto(path.as_uri())
        page.wait_for_function(READY)
        return page

    yield open_
    for page in pages:
        page.close()
    assert not complaints


def outside(url: str) -> bool:
    """Whether a request would leave the file."""
    return not url.startswith(("file:", "data:", "blob:"))
