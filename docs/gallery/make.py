"""Make the pictures of this folder and of docs/papers.md again, from recordings of the demo's model: `make gallery`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import contact
import papers

import stratoscope
from stratoscope.doors.demo import demo
from stratoscope.doors.progress import progress

HERE = Path(__file__).parent
SCREEN = {"width": 1280, "height": 800}
PAIR = ("critical", "neutral")


def draw(folder: Path) -> None:
    """Every picture of the gallery, from a folder that the demo has filled."""
    trace, tables = folder / "smollm2.trace", [folder / f"{name}.csv" for name in PAIR]
    stratoscope.heatmap(trace, HERE / "heatmap.png", overwrite=True)
    stratoscope.compare(trace, HERE / "compare.png", overwrite=True)
    stratoscope.heatmap(trace, HERE / "profile.png", profile=True, quantity="mlp_write_ratio", overwrite=True)
    for name in PAIR:
        chosen = {"prompt_class": name, "overwrite": True}
        stratoscope.heatmap(trace, HERE / f"heatmap-{name}.png", all_prompts=True, span="user", **chosen)
        stratoscope.engagement(trace, HERE / f"engagement-{name}.png", **chosen)
    stratoscope.heatmap(trace, HERE / "erase.png", quantity="mlp_write_cos", theme="dark", overwrite=True)
    stratoscope.heatmap(tables, HERE / "from-csv.png", overwrite=True)
    photograph(folder / "peaks3d.html", HERE / "peaks3d.png")


def photograph(page: Path, picture: Path) -> None:
    """What a browser shows of a page, without a network."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        context = browser.new_context(viewport=SCREEN, offline=True)
        view = context.new_page()
        view.goto(page.resolve().as_uri())
        view.wait_for_selector(".gl-container canvas")
        view.wait_for_timeout(2000)
        view.screenshot(path=picture)
        browser.close()


def main() -> None:
    """Record once, draw everything."""
    with tempfile.TemporaryDirectory() as name, progress() as show:
        demo(Path(name), simulated=False, overwrite=False, progress=show)
        draw(Path(name))
        lengths, hundred = contact.record(Path(name), show)
        contact.draw(Path(name) / "smollm2.trace", lengths, hundred)
        papers.draw(Path(name), hundred)
    for picture in sorted(HERE.glob("*.png")):
        print(picture)


if __name__ == "__main__":
    main()
