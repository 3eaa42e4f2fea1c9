"""The report of a contrast in a real browser: both themes, small and large, with long and strange tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

import stratoscope


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trace = stratoscope.simulate(prompts=40, layers=12, d_ff=64, heads=2, tokens=(20, 30), seed=3)
    words = trace["text"].values.copy()
    words[words == " and"] = " <img src=x onerror=alert(1)>" + "long" * 30
    trace["text"].values[:] = words
    folder = tmp_path_factory.mktemp("report") / "contrast"
    return stratoscope.save_result(stratoscope.contrast(trace, groups=False), folder) / "report.html"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 800, 1400])
def test_the_page_fits_its_window_and_follows_the_theme(browser: Browser, report: Path, width: int, theme: str) -> None:
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)  # type: ignore[arg-type]
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url[:4] == "http" else None)
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = "[...document.images].filter(one => getComputedStyle(one).display !== 'none')"
    assert page.evaluate(f"{shown}.every(one => one.className === '{theme}')")
    images = page.evaluate(f"{shown}.map(one => [one.naturalWidth, one.clientWidth])")
    assert len(images) >= 5
    assert all(natural > 0 and across >= 0.7 * natural * 96 / 200 for natural, across in images)  # can be read
    wide = page.evaluate("[...document.querySelectorAll('.wide')].map(one => one.getBoundingClientRect().right)")
    assert all(right <= width for right in wide)  # it is they that scroll, not the page
    broken = "[...document.querySelectorAll('.unbroken')].filter(one => one.getClientRects().length > 1).length"
    assert page.evaluate(broken) == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert not complaints
    page.close()


@pytest.mark.browser
def test_a_page_prints_in_ink_on_paper_whatever_the_screen_shows(browser: Browser, report: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(report.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("document.images.length") >= 10
    displays = "[...document.images].filter(one => getComputedStyle(one).display !== 'none').map(one => one.className)"
    assert set(page.evaluate(displays)) == {"light"}
    assert page.evaluate("getComputedStyle(document.querySelector('thead')).display") == "table-header-group"
    page.close()
