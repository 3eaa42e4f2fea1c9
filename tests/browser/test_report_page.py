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
    images = page.evaluate("[...document.images].map(one => [one.naturalWidth, one.clientWidth])")
    assert len(images) >= 5
    assert all(natural > 0 and 0 < shown <= width for natural, shown in images)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert not complaints
    page.close()


@pytest.mark.browser
def test_a_warning_leads_to_its_note(browser: Browser, report: Path) -> None:
    page = browser.new_page()
    page.goto(report.as_uri())
    link = page.locator(".warning a").first
    link.click()
    assert page.evaluate("document.querySelector(':target')") is not None
    page.close()
