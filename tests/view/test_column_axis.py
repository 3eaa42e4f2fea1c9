"""Under the columns: positions in the prompt, never column numbers, and brackets that name its parts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from sheets import column_labels, outside, overlapping, said
from view_traces import make_trace

from drawn_maps import sheet_of
from stratoscope import names
from stratoscope.view.choose.selection import Selection
from stratoscope.view.maps.build import build
from stratoscope.view.maps.differences import aligned_tokens
from stratoscope.view.maps.heatmap import heatmap_spec
from stratoscope.view.maps.strips import Strip
from stratoscope.view.sheet.items import Box, CellMap, Sheet, Text
from stratoscope.view.spec import palette
from stratoscope.view.spec.maps import DrawnQuantity
from stratoscope.view.spec.tokens import ShownPrompt

PARTS = (("special", 1), ("template", 2), ("system", 14), ("template", 4), ("user", 15), ("template", 4),
         ("generated", 8))  # fmt: skip


def chat(prompts: int = 1, times: int = 1, parts: tuple[tuple[str, int], ...] = PARTS) -> xr.Dataset:
    """Prompts of these parts, each so many times as long."""
    span = np.concatenate([np.full(count * times, names.SPANS.index(name)) for name, count in parts])
    trace = make_trace(lengths=(len(span),) * prompts, layers=30, texts=[f"t{n}" for n in range(len(span))] * prompts)
    return trace.assign_coords(span=("token", np.tile(span, prompts).astype("int8")))


def checked(dataset: xr.Dataset, selection: Selection | None = None) -> Sheet:
    sheet = sheet_of(heatmap_spec(dataset, selection or Selection()))
    assert not outside(sheet)
    assert not overlapping(sheet)
    return sheet


def under(sheet: Sheet, one: CellMap) -> list[Text]:
    """Texts below a map, in reading order."""
    below = [text for text in sheet.texts() if 0 < text.y - one.y - one.height < 1 and text.x < one.x + one.width + 0.1]
    return sorted(below, key=lambda text: text.x)


def numbers(sheet: Sheet, one: CellMap) -> dict[int, int]:
    """Column and number of each position that is written under a map."""
    pitch = one.width / (one.stop - one.start)
    found = [text for text in under(sheet, one) if text.text.isdecimal() and text.ha == "center"]
    return {one.start + round((text.x - one.x) / pitch - 0.5): int(text.text) for text in found}


def brackets(sheet: Sheet, one: CellMap) -> list[Box]:
    """The lines of the brackets under a map."""
    muted = palette.theme("light").muted
    lines = [item for item in sheet.items if isinstance(item, Box) and item.fill == muted and item.width > 0.03]
    return [item for item in lines if 0 < item.y - one.y - one.height < 1 and item.x < one.x + one.width]


@pytest.mark.parametrize(("tokens", "step"), [(3, 1), (45, 5), (300, 5), (1_400, 5)])
def test_every_fifth_token_has_its_position_and_so_has_the_first_of_each_line(tokens: int, step: int) -> None:
    sheet = checked(make_trace(lengths=(tokens,), layers=4))
    for one in sheet.maps():
        found = numbers(sheet, one)
        assert all(column == position for column, position in found.items())
        assert {place for place in range(one.start + 3, one.stop) if place % step == 0} <= set(found)
        assert one.start in found


def test_positions_are_those_in_the_prompt_where_a_span_is_shown_and_where_prompts_stand_end_to_end() -> None:
    user = checked(chat(), Selection(span="user"))
    (one,) = user.maps()
    assert numbers(user, one)[0] == 21
    assert numbers(user, one)[4] == 25
    two = checked(chat(), Selection(span=["system", "user"]))
    found = {column: place for one in two.maps() for column, place in numbers(two, one).items()}
    assert (found[0], found[14]) == (3, 21)  # where positions do not go on there is a number
    both = checked(chat(2), Selection(all_prompts=True))
    found = {column: place for one in both.maps() for column, place in numbers(both, one).items()}
    assert (found[48], found[53], found[93]) == (0, 5, 45)


def test_pooled_prompts_end_to_end_have_positions_of_their_own() -> None:
    sheet = checked(make_trace(lengths=(2_000, 3_000), layers=4), Selection(all_prompts=True))
    (one,) = sheet.maps()
    by = 5_000 / (one.stop - one.start)
    found = {column * by: int(label.text.removeprefix("token ").replace(",", "")) for column, label in one.columns}
    assert found[0] == 0
    for token, position in found.items():
        assert abs(position - (token if token < 2_000 else token - 2_000)) <= by
    assert sum(token >= 2_000 for token in found) >= 3


@pytest.mark.parametrize("times", [1, 6, 60])
def test_brackets_name_the_parts_of_a_prompt_where_they_are(times: int) -> None:
    sheet = checked(chat(times=times))
    found: dict[str, list[tuple[float, float]]] = {}
    for one in sheet.maps():
        pitch = one.width / (one.stop - one.start)
        lines = brackets(sheet, one)
        for name in ("system", "user", "answer"):
            for text in (text for text in under(sheet, one) if text.text == name and not text.rotated):
                left, _, right, _ = text.extent()
                (line,) = (line for line in lines if line.x - 0.13 < left and right < line.x + line.width + 0.13)
                ends = one.start + (line.x - one.x) / pitch, one.start + (line.x + line.width - one.x) / pitch
                found.setdefault(name, []).append(ends)
    tokens = 48 * times
    columns = max(one.stop for one in sheet.maps())
    begins = {"system": 3, "user": 21, "answer": 40}
    stops = {"system": 17, "user": 36, "answer": 48}
    for name, ends in found.items():
        assert ends[0][0] * tokens / columns == pytest.approx(begins[name] * times, abs=0.2 * tokens / columns + 8)
        assert ends[-1][1] * tokens / columns == pytest.approx(stops[name] * times, abs=0.2 * tokens / columns + 8)
    assert set(found) == set(begins)


def test_a_part_too_narrow_for_its_name_has_a_bracket_without_one() -> None:
    parts = (("user", 20), ("generated", 1), ("user", 1), ("generated", 1), ("template", 37))
    sheet = checked(chat(parts=parts))
    (one,) = sheet.maps()
    assert len(brackets(sheet, one)) == 4
    assert "answer" not in [text.text for text in under(sheet, one)]
    assert [text.text for text in under(sheet, one)].count("user") >= 1


def test_a_prompt_of_one_part_has_no_bracket() -> None:
    for parts in ((("special", 1), ("user", 20)), (("template", 12),)):
        sheet = checked(chat(parts=parts))
        assert brackets(sheet, sheet.maps()[0]) == []
    unknown = make_trace(lengths=(12,))
    unknown = unknown.assign_coords(span=("token", np.full(12, -1, "int8")))
    assert brackets(sheet_of(heatmap_spec(unknown)), sheet_of(heatmap_spec(unknown)).maps()[0]) == []


def test_the_system_message_is_fainter_than_the_users_words_and_the_template_faintest() -> None:
    spec = heatmap_spec(chat())
    labels = [label.colour for one in sheet_of(spec).maps() for label in column_labels(one).values()]
    theme = palette.theme("light")
    assert set(labels[:3]) == set(labels[17:21]) == {theme.faint}
    assert set(labels[3:17]) == {theme.muted}
    assert set(labels[21:36]) == set(labels[40:]) == {theme.ink}
    contrast = [
        palette.contrast(palette.rgb_of(one), palette.rgb_of(theme.paper)) for one in (labels[0], labels[3], labels[21])
    ]
    assert 4.5 < contrast[0] < contrast[1] < contrast[2]
    assert "11 of 48 tokens are template or special (faintest), 14 of a system message (faint)" in said(spec)


def test_aligned_prompts_have_the_positions_of_the_first_and_brackets_that_the_other_does_not_break() -> None:
    in_a = np.array([True] * 12 + [False] * 3 + [True] * 15)
    position = np.where(in_a, np.cumsum(in_a) - 1, -1)
    user, template = (names.SPANS.index(name) for name in ("user", "template"))
    table = xr.Dataset(
        {
            "position_a": ("column", position),
            "position_b": ("column", np.arange(30)),
            "text_a": ("column", np.full(30, "a", object)),
            "text_b": ("column", np.full(30, "a", object)),
            "equal": ("column", in_a),
            "first": ("column", np.arange(30) == 0),
            "template": ("column", np.arange(30) < 4),
            "span": ("column", np.where(np.arange(30) < 4, template, user)),
        }
    )
    axis = aligned_tokens(table, [ShownPrompt("a"), ShownPrompt("b")])
    values = np.random.default_rng(0).random((30, 4))
    strip = Strip(DrawnQuantity("values", "value", "1", "", rows=(0, 1, 2, 3)), [values])
    sheet = sheet_of(build("", "", [axis], [strip]))
    (one,) = sheet.maps()
    assert numbers(sheet, one) == {0: 0, 5: 5, 10: 10, 18: 15, 23: 20, 28: 25}
    assert len(brackets(sheet, one)) == 1
