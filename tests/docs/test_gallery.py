"""The gallery shows recordings of a real model and says so in each picture; its page shows every picture."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
PICTURES = sorted(path.name for path in GALLERY.glob("*.png"))
CONTACT_SHEETS = sorted(f"contact/{path.name}" for path in GALLERY.glob("contact/*.webp"))
PHOTOGRAPHS = {"peaks3d.png"}  # of a page; the page carries its own provenance


def provenance(name: str) -> dict[str, str]:
    with Image.open(GALLERY / name) as picture:
        return dict(json.loads(picture.info["stratoscope"])["provenance"])


def test_the_page_shows_every_picture() -> None:
    shown = re.findall(r"\]\(([^)]+\.(?:png|webp))\)", (GALLERY / "README.md").read_text("utf-8"))
    assert sorted(shown) == sorted([*PICTURES, *CONTACT_SHEETS])


@pytest.mark.parametrize("name", sorted(set(PICTURES) - PHOTOGRAPHS))
def test_a_picture_carries_where_it_comes_from(name: str) -> None:
    assert provenance(name)["source"] == ("imported" if name == "from-csv.png" else "real")


def test_the_pictures_are_of_one_recording() -> None:
    recorded = [name for name in PICTURES if name not in {*PHOTOGRAPHS, "from-csv.png"}]
    assert len({provenance(name)["uuid"] for name in recorded}) == 1


@pytest.mark.parametrize("name", [*PICTURES, *CONTACT_SHEETS])
def test_no_picture_is_too_large_for_a_page(name: str) -> None:
    assert (GALLERY / name).stat().st_size < 1_000_000
