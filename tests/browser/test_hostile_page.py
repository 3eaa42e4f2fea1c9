"""Report, peaks3d and routes page of a hostile trace in a real browser: nothing runs, nothing is asked for, nobody is sent away."""  # noqa: E501

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from playwright.sync_api import Browser

import stratoscope
from stratoscope.view.report import contents_of
from stratoscope.words import visible

pytestmark = pytest.mark.browser

MARKER = (
    '<meta http-equiv=refresh content="0;url=http://127.0.0.1/x"><img src=x onerror="window.ran=1">\'"></script>'
    '</title><script>window.ran=2</script><a href="javascript:window.ran=3">here</a>{{7*7}}\u202e\x1b]0;t\x07\x00\r'
)


def hostile(**shape: Any) -> xr.Dataset:
    """A simulated trace with the marker in each text of each prompt and token, and in all its attributes."""
    trace = stratoscope.simulate(
        **{"prompts": 16, "layers": 3, "d_ff": 16, "heads": 1, "tokens": 6, "seed": 3, **shape}
    )
    for name in ("text", "prompt_id", "prompt_class", "pair"):
        words = np.empty(trace[name].shape, dtype=object)
        words[:] = [one + MARKER for one in trace[name].values]
        trace[name].variable._data = words
    note = {"id": f'x"><meta{MARKER}', "severity": MARKER, "text": MARKER}
    return trace.assign_attrs(
        uuid=MARKER, model={"name": MARKER}, receipt={"receipt_line": MARKER}, source="real", notes=[note]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile")
    trace = hostile()
    stratoscope.save_result(stratoscope.contrast(trace, groups=False, permutations=99), path / "contrast")
    stratoscope.peaks3d(trace, path / "peaks.html")
    routes = hostile(prompts=2, record="peaks,routes")
    stratoscope.routes(routes, path / "routes.html", prompt=[0, 1], edges=30, first_token=True, difference=True)
    return path


@pytest.mark.parametrize("name", ["contrast/report.html", "peaks.html", "routes.html"])
def test_a_strangers_texts_stay_texts(browser: Browser, folder: Path, name: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.goto((folder / name).as_uri())
    if name != "contrast/report.html":
        page.wait_for_function("window.stratoscopeReady === true")
    page.wait_for_timeout(300)  # a refresh would have happened
    assert [url for url in asked if not url.startswith(("file:///", "data:", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == 1
    assert page.url == (folder / name).as_uri()
    assert page.evaluate("window.ran") is None
    found: dict[str, Any] = page.evaluate(
        """() => ({
          refreshes: document.querySelectorAll('meta[http-equiv=refresh]').length,
          images: [...document.images].filter(one => !["png", "webp"].includes(
            one.src.split(";")[0].replace("data:image/", ""))).length,
          handlers: [...document.querySelectorAll('*')].filter(
            one => one.tagName !== 'FORM' && one.getAttributeNames().some(name => name.startsWith('on'))).length,
          links: [...document.querySelectorAll('a[href]')].map(one => one.getAttribute('href')),
          words: document.body.innerText,
        })"""
    )
    assert (found["refreshes"], found["images"], found["handlers"]) == (0, 0, 0)
    assert all(re.fullmatch(r"#L\d\d", link) for link in found["links"])
    assert "<meta http-equiv=refresh" in found["words"]
    assert not {"\u202e", "\x1b", "\x00"} & set(found["words"])
    page.close()


def test_a_title_is_the_one_that_the_report_gives_itself(browser: Browser, folder: Path) -> None:
    page = browser.new_page()
    page.goto((folder / "contrast/report.html").as_uri())
    wanted = contents_of(stratoscope.contrast(hostile(), groups=False, permutations=99)).title
    assert MARKER in wanted
    assert page.title() == " ".join(visible(wanted).split())
    page.close()
