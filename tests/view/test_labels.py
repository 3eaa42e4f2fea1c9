"""Token labels: everything visible, nothing harmful."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager

from stratoscope.view.sheet import fonts, missing
from stratoscope.words import WIDTH, drawable, drawable_line, html_label, isolate, readable, readable_all

anything = st.text(st.characters(codec=None) | st.sampled_from("\udc80\udce4\u202e\u200f\u0301 \n\t$<مש"), max_size=30)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("", "∅"),
        (" How", "·How"),
        ("a b ", "a b·"),
        ("        ", "·×8"),
        ("\n", "↵"),
        ("\n\n\n\n\n", "↵×5"),
        ("\t", "⇥"),
        ("\r\n", "␍↵"),
        ("\x00", "␀"),
        ("\x7f", "␡"),
        ("\udce4", "⟨E4⟩"),
        ("\ud83d", "U+D83D"),
        ("a\u202eb", "aU+202Eb"),
        ("a\u00a0b", "aU+00A0b"),
        ("\u0301", "◌\u0301"),
        ("$x$", "$x$"),
        ("<s>", "<s>"),
        ("</script>", "</script>"),
    ],
)
def test_nothing_in_a_token_stays_invisible(text: str, label: str) -> None:
    assert readable(text) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [("▁Explain", "·Explain"), ("ĠHi", "·Hi"), ("Ċ", "↵"), ("<0x0A>", "↵"), ("<0xE4>", "⟨E4⟩"), ("<s>", "<s>")],
)
def test_a_tokenizers_spelling_is_undone_only_where_it_is_one(text: str, label: str) -> None:
    assert readable(text, spelling="tokenizer") == label
    assert readable(text) == text


def test_a_long_token_keeps_both_its_ends() -> None:
    label = readable(" antidisestablishmentarianism")
    assert len(label) == WIDTH
    assert label.startswith("·anti")
    assert label.endswith("ianism")
    assert "…" in label


def test_a_byte_is_never_cut_in_two() -> None:
    label = readable("\udce4" * 9)
    assert label.count("⟨") == label.count("⟩") == label.count("E4")


@settings(deadline=None)
@given(anything)
def test_no_label_holds_a_character_that_cannot_be_seen(text: str) -> None:
    visible = readable(text).strip("\u2068\u2069")
    assert visible
    for char in visible:
        assert char in " \u200c\u200d\ufe0e\ufe0f" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


@settings(deadline=None)
@given(anything, st.integers(6, 40))
def test_no_label_is_much_longer_than_asked_for(text: str, width: int) -> None:
    longest_part = len("U+10FFFF") + 1
    assert len(readable(text, width=width).strip("\u2068\u2069")) <= width + 2 * longest_part


@settings(deadline=None)
@given(anything)
def test_every_drawn_label_has_all_its_glyphs(text: str) -> None:
    label = drawable(readable(text), fonts.has_glyph)
    assert all(fonts.has_glyph(char) for char in label.strip("\u2068\u2069"))


@settings(deadline=None)
@given(anything)
def test_a_page_label_holds_no_markup(text: str) -> None:
    assert not set(html_label(readable(text))) & set("<>\"'")


def test_a_missing_glyph_becomes_its_code_point() -> None:
    def ascii_only(char: str) -> bool:
        return char.isascii() or char == "…"

    assert drawable("你好", ascii_only) == "U+4F60 U+597D"
    assert drawable("␀", ascii_only) == "U+0000"
    assert drawable("plain", ascii_only) == "plain"


def test_an_installed_font_with_the_glyph_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = "\U0001d538"  # double-struck A: STIX, which comes with matplotlib, is asked when the family lacks a glyph
    lacking = next(chr(code) for code in range(0x2A00, 0x2B00) if not fonts.has_glyph(chr(code)) or chr(code) == rare)
    fonts.families.cache_clear()
    monkeypatch.setattr(fonts, "FALLBACKS", ("STIXGeneral", "no such family"))
    try:
        assert fonts.families() == [fonts.FAMILY, "STIXGeneral"]
        assert fonts.has_glyph(rare)
        assert isinstance(fonts.has_glyph(lacking), bool)
    finally:
        fonts.families.cache_clear()


@pytest.mark.parametrize(
    ("text", "label", "drawn"),
    [
        ("❤\ufe0f", "❤\ufe0f", "❤"),  # chosen by a page, not by a font
        ("\ufe0f", "U+FE0F", "U+FE0F"),
        ("葛\U000e0100", "葛\U000e0100", "U+845B"),
        ("\u200d", "U+200D", "U+200D"),
        ("م\u200cخ", "\u2068م\u200cخ\u2069", "\u2068م\u200cخ\u2069"),
        ("你\u200d好", "你\u200d好", "U+4F60 U+597D"),
    ],
)
def test_what_only_shapes_its_neighbour_is_no_glyph_of_its_own(text: str, label: str, drawn: str) -> None:
    def has_glyph(char: str) -> bool:
        return fonts.has_glyph(char) and char not in "葛你好"  # whatever is installed

    assert readable(text) == label
    assert drawable(label, has_glyph) == drawn
    assert drawable_line(label, has_glyph).replace("U+597D", " U+597D") == drawn


def test_the_package_that_brings_a_missing_glyph_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "has_glyph", lambda char: char.isascii() or char == "…")
    monkeypatch.setattr(fonts, "_add_new_fonts", lambda: None)
    monkeypatch.setattr(missing, "_told", set())
    for text in ("你好", "世界", "สวัสดี", "🎉", "plain", "\udce4\n", "你好"):
        fonts.drawn(text)
    said = [record.getMessage() for record in caplog.records if record.name == "stratoscope"]
    assert [re.search("apt install ([a-z-]+)", one)[1] for one in said] == [  # type: ignore[index]
        "fonts-noto-cjk", "fonts-noto-core", "fonts-symbola",
    ]  # fmt: skip


def test_a_font_installed_since_matplotlib_looked_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = "\U0001d538"
    (stix,) = (font for font in font_manager.fontManager.ttflist if Path(font.fname).name == "STIXGeneral.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [
        font for font in font_manager.fontManager.ttflist if font.name in (fonts.FAMILY, "Last Resort High-Efficiency")
    ])  # fmt: skip
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [stix.fname, "/no/such/STIX.ttf"])
    monkeypatch.setattr(fonts, "FALLBACKS", ("STIXGeneral",))
    monkeypatch.setattr(fonts, "_FILES", ("STIX",))
    caches = (fonts._add_new_fonts, fonts.families, fonts._font, fonts._characters, fonts._width_at_20)
    for one in caches:
        one.cache_clear()
    try:
        assert not fonts.has_glyph("\U0001d539") or fonts.families() == [fonts.FAMILY]
        assert fonts.drawn("\U0001d7d8") in ("\U0001d7d8", "U+1D7D8")
        fonts.drawn("\U00013000")  # a hieroglyph, which no font of these has
        assert fonts.families() == [fonts.FAMILY, "STIXGeneral"]
        assert fonts.has_glyph(rare)
    finally:
        for one in caches:
            one.cache_clear()


def test_right_to_left_text_is_isolated_and_other_text_is_not() -> None:
    assert readable(" مرحبا") == "\u2068·مرحبا\u2069"
    assert isolate("abc") == "abc"


def test_labels_keep_their_order() -> None:
    assert readable_all(["b", "a", "b"]) == ["b", "a", "b"]


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x7F) | st.just(" "), max_size=20), st.integers(6, 20))
def test_plain_words_are_read_as_the_same_words_among_others(text: str, width: int) -> None:
    among = readable(f"{text}\u0301", width=60)  # with a character that no plain word has
    if text and not text.endswith((" ", "\n", "\t", "\r")) and len(readable(text, width=60)) <= width:
        assert readable(text, width=width) == among.removesuffix("\u0301")
