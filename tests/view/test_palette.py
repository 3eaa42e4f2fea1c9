"""Colours: uniform, safe for colour-blind readers, and legible."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import stratoscope
from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.view.spec import palette

READABLE = 4.5  # WCAG 2.2, level AA
BLINDNESS = {  # linear sRGB, Machado et al. 2009, severity 1
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _map(*, signed: bool) -> np.ndarray:
    return palette.diverging() if signed else palette.sequential()


def seen_with(blindness: str, rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.array(BLINDNESS[blindness]).T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def steps(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(np.diff(palette.oklab(rgb), axis=0), axis=1)


@pytest.mark.parametrize("signed", [False, True])
def test_equal_values_look_equally_far_apart(signed: bool) -> None:
    distances = steps(_map(signed=signed))
    assert distances.max() / distances.min() < 1.15


def test_larger_is_always_lighter() -> None:
    assert (np.diff(palette.oklab(palette.sequential())[:, 0]) > 0).all()


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_larger_is_lighter_to_colour_blind_readers_too(blindness: str) -> None:
    lightness = palette.oklab(seen_with(blindness, palette.sequential()))[:, 0]
    assert (np.diff(lightness) > 0).all()


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_minus_and_plus_stay_apart_to_colour_blind_readers(blindness: str) -> None:
    lab = palette.oklab(seen_with(blindness, palette.diverging()))
    apart = np.linalg.norm(lab - lab[::-1], axis=1)[:90]
    assert apart.min() > 0.08, f"closest pair of −v and +v: {apart.min():.3f}"


def test_zero_is_in_the_middle_and_the_two_sides_weigh_the_same() -> None:
    lightness = palette.oklab(palette.diverging())[:, 0]
    assert np.argmax(lightness) in (127, 128)
    assert np.abs(lightness - lightness[::-1]).max() < 0.05


@pytest.mark.parametrize("theme", names.THEMES)
def test_every_text_reads_on_its_paper(theme: names.Theme) -> None:
    colours = palette.theme(theme)
    for role in ("ink", "muted", "faint", "accent"):
        ratio = palette.contrast(palette.rgb_of(getattr(colours, role)), palette.rgb_of(colours.paper))
        assert ratio >= READABLE, f"{theme} {role}: {ratio:.2f}"
    for role in ("ink", "muted"):  # the empty panel
        ratio = palette.contrast(palette.rgb_of(getattr(colours, role)), palette.rgb_of(colours.missing))
        assert ratio >= READABLE, f"{theme} {role} on missing: {ratio:.2f}"


@pytest.mark.parametrize("signed", [False, True])
def test_numbers_read_on_every_cell(signed: bool) -> None:
    for colour in _map(signed=signed):
        ink = palette.rgb_of(palette.ink_on(colour))
        assert palette.contrast(ink, colour) >= READABLE


@pytest.mark.parametrize("theme", names.THEMES)
def test_missing_cells_look_like_no_value(theme: names.Theme) -> None:
    missing = palette.oklab(palette.rgb_of(palette.theme(theme).missing)[None])
    nearest = np.linalg.norm(palette.oklab(palette.sequential()) - missing, axis=1).min()
    assert nearest > 0.05 or palette.theme(theme).missing_line != palette.theme(theme).missing


def test_an_unknown_theme_names_those_that_exist() -> None:
    with pytest.raises(InputError, match="light, dark"):
        palette.theme("sepia")


def test_colours_are_written_in_one_place_only() -> None:
    folder = Path(stratoscope.__file__).parent / "view"
    for path in folder.glob("*.py"):
        if path.name != "palette.py":
            assert not re.findall(r"[\"']#[0-9a-fA-F]{3,8}[\"']", path.read_text("utf-8")), path.name
