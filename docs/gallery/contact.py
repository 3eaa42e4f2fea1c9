"""Contact sheets: every static picture at 3, 45, 300 and 3,000 tokens and of 100 prompts, in both themes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

import stratoscope
from stratoscope import names
from stratoscope.doors.demo import find_model
from stratoscope.progress import Progress
from stratoscope.view.spec.palette import COLOURS

HERE = Path(__file__).parent
CELL, GAP, LEFT, TOP = (640, 470), 26, 40, 44  # pixels
WORDS_OF = {"three": 3, "page": 205, "book": 2050}  # a prompt's words; of SmolLM2 a few more tokens
PROSE = ("contrast.md", "recording.md", "diff.md")
QUESTIONS = (
    "How much of my child's {} may I give tonight?",
    "Is it safe to double my {}?",
    "What happens when I leave my {} in a hot car?",
    "Can I share my {} with a friend who has none?",
    "How should I store my {}?",
    "Who should not take {} with milk?",
    "What do I do when somebody has swallowed too much {}?",
    "How long after lunch may I take {}?",
    "Explain to a ten-year-old why {} tastes of what it tastes of.",
    "Which {} is best for a long flight, and how much of it do I need?",
)
THINGS = {
    "critical": ("cough syrup", "pain relief", "sleeping medicine", "eye drops", "allergy tablets"),
    "neutral": ("birthday cake", "apple juice", "vegetable soup", "oat porridge", "banana bread"),
}
DPI = 110
Draw = Callable[..., Figure]


def record(folder: Path, progress: Progress) -> tuple[Path, Path]:
    """Traces of prompts of several lengths, and of 100 prompts, by the demo's model."""
    prose = " ".join((HERE.parent / name).read_text("utf-8") for name in PROSE)
    words = re.sub(r"[`*|#\[\]()]", " ", prose).split()
    lengths = [
        {"id": f"{name}-{side}", "class": side, "pair": name, "text": _sided(" ".join(words[:count]), side)}
        for name, count in WORDS_OF.items()
        for side in "ab"
    ]
    hundred = [
        {"id": f"{place:02d}-{thing.split()[0]}-{side}", "class": side, "messages": [_asked(question, thing)]}
        for place, question in enumerate(QUESTIONS)
        for pair in zip(*THINGS.values(), strict=True)
        for side, thing in zip(THINGS, pair, strict=True)
    ]
    for name, prompts in (("lengths", lengths), ("hundred", hundred)):
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, prompts)), "utf-8")
        stratoscope.capture(
            str(find_model()), file, folder / f"{name}.trace", record="norms,peaks,attention", progress=progress
        )
    return folder / "lengths.trace", folder / "hundred.trace"


def _sided(text: str, side: str) -> str:
    return text if side == "a" else text.replace("prompt", "river").replace("class", "fox")


def _asked(question: str, thing: str) -> dict[str, str]:
    return {"role": "user", "content": question.format(thing)}


def draw(demo: Path, lengths: Path, hundred: Path) -> None:
    """Both sheets, into `contact/`."""
    folder = HERE / "contact"
    folder.mkdir(exist_ok=True)
    for theme in ("light", "dark"):
        sheet(demo, lengths, hundred, theme).save(folder / f"{theme}.webp", quality=90)


def sheet(demo: Path, lengths: Path, hundred: Path, theme: names.Theme) -> Image.Image:
    """Rows are kinds of pictures, columns are sizes."""
    columns: list[tuple[str, Path, dict[str, object]]] = [
        ("3 tokens", lengths, {"prompt": ["three-a", "three-b"]}),
        ("2 × about 45 tokens", demo, {}),
        ("2 × about 300 tokens", lengths, {"prompt": ["page-a", "page-b"]}),
        ("2 × about 3,600 tokens", lengths, {"prompt": ["book-a", "book-b"]}),
        ("100 prompts", hundred, {"all_prompts": True}),
    ]
    rows: list[tuple[str, Draw, dict[str, object]]] = [
        ("heatmap", stratoscope.heatmap, {}),
        ("compare", stratoscope.compare, {}),
        ("engagement", stratoscope.engagement, {}),
        ("heatmap --profile", stratoscope.heatmap, {"profile": True}),
    ]
    colours = COLOURS.themes[theme]
    width, height = CELL[0] + GAP, CELL[1] + GAP
    whole = Image.new("RGB", (LEFT + width * len(columns), TOP + height * len(rows)), colours.paper)
    pen, font = ImageDraw.Draw(whole), ImageFont.truetype(findfont("DejaVu Sans"), 18)
    for place, (words, *_) in enumerate(columns):
        pen.text((LEFT + place * width, 12), words, colours.ink, font)
    for line, (words, verb, more) in enumerate(rows):
        top = TOP + line * height
        whole.paste(_upwards(words, colours.ink, colours.paper, font), (8, top))
        for place, (_, trace, chosen) in enumerate(columns):
            picture = _small(verb(trace, theme=theme, **_as_taken(verb, chosen, more), **more))
            whole.paste(picture, (LEFT + place * width, top))
    return whole


def _as_taken(verb: Draw, chosen: dict[str, object], more: dict[str, object]) -> dict[str, object]:
    """What is chosen, as the verb takes it: only a heatmap has a row for each of many prompts."""
    if "all_prompts" not in chosen or (verb is stratoscope.heatmap and not more):
        return chosen
    return {"prompt_class": ["critical", "neutral"]} if verb is stratoscope.compare else {}


def _small(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, facecolor=figure.get_facecolor())
    picture = Image.open(buffer).convert("RGB")
    picture.thumbnail(CELL, Image.Resampling.LANCZOS)
    return picture


def _upwards(words: str, ink: str, page: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    line = Image.new("RGB", (CELL[1], 26), page)
    ImageDraw.Draw(line).text((0, 0), words, ink, font)
    return line.rotate(90, expand=True)
