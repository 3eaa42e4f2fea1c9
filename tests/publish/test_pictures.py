"""A published picture holds what its level keeps and nothing else of its file; it is as it was, or drawn anew."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import stratoscope
from stratoscope import names
from stratoscope.errors import InputError
from stratoscope.publish.pictures import page, pdf, pdf_objects, png, svg
from stratoscope.publish.pictures.about import About, NotOurs, read_about
from stratoscope.publish.pictures.files import public_picture
from stratoscope.publish.pictures.keys import KEYS, kept_values
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.publish.tokens.traces import published_trace
from stratoscope.view.matplotlib.render import render
from stratoscope.view.peaks3d.build import peaks_spec
from stratoscope.view.report import contents_of
from stratoscope.view.spec.document import Packing
from stratoscope.view.spec.drawn_by import drawn_by, drawn_by_result

SUFFIXES = (".png", ".svg", ".pdf")
FORMATS = {".png": png, ".svg": svg, ".pdf": pdf}
SECRET = "s3cret-marker"
Draw = Callable[..., Path]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    path = tmp_path_factory.mktemp("pictures") / f"{SECRET}.trace"
    groups = "norms,residual,peaks,attention,lens,routes,logits,effects"
    stratoscope.simulate(path, prompts=4, tokens=7, layers=3, d_model=16, d_ff=32, heads=2, record=groups)
    return stratoscope.open_trace(path)


@pytest.fixture(scope="module")
def drawn(trace: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """A picture of that trace; drawn once."""
    folder = tmp_path_factory.mktemp("drawn")

    def draw(verb: str, suffix: str = ".png", **asked: Any) -> Path:
        path = folder / f"{verb}-{zlib.crc32(repr(asked).encode())}{suffix}"
        if not path.exists():
            getattr(stratoscope, verb)(trace, path, **asked)
        return path

    return draw


def publish_picture(source: Path, out: Path, level: names.Level, *, trace: xr.Dataset | None = None) -> tuple[str, ...]:
    public = public_picture(source, level, trace=trace)
    public.check(out, overwrite=False)
    public.write(out, overwrite=False)
    return public.told


def said_by(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    text = FORMATS[path.suffix].said(data) if path.suffix in FORMATS else page.read_spec(data).metadata_json()
    found: dict[str, Any] = json.loads(text)
    return found


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and all that is packed in it; of a page its data without the scripts."""
    data = path.read_bytes()
    if path.suffix == ".html":
        data = re.sub(rb"<script>.*?</script>", b"", data, flags=re.DOTALL)
        yield from (base64.b64decode(one) for one in re.findall(rb'(?:stratoscope-view">|base64,)([\w+/=]+)', data))
    if path.suffix == ".pdf":
        for one in pdf_objects.read(data).objects.values():
            texts = re.findall(rb"\(((?:[^()\\]|\\.)*)\)", one.stream or b"")
            yield from (one.stream or b"", b"".join(texts).replace(b"\0", b""))
    yield data


def found_in(path: Path, words: list[str]) -> list[str]:
    held = list(contents(path))
    coded = {word: [word.encode(coding) for coding in ("utf-8", "utf-16-le", "utf-16-be")] for word in words}
    return [word for word, ways in coded.items() if any(way in one for way in ways for one in held)]


# --- the table of keys ------------------------------------------------------------------------------------------------


def test_every_key_that_a_picture_carries_is_listed(drawn: Draw, trace: xr.Dataset) -> None:
    said = [said_by(drawn(verb)) for verb in ("heatmap", "lens", "compare")]
    said += [said_by(drawn(verb, Path(name).suffix, **asked)) for name, (verb, asked) in AT_NO_TEXT.items()]
    for result in (stratoscope.anomalies(trace), stratoscope.suppression(trace)):
        said += [json.loads(one.spec.metadata_json()) for one in contents_of(result).figures()]
        said[-1]["drawn_by"] = Packing().pack(drawn_by_result(result))
    for one in said:
        assert set(one) == {field.name for field in fields(About)}
        for level in names.LEVELS:
            kept_values(one, level)  # raises for a key that is not listed
    with pytest.raises(NotOurs, match="which no level lists"):
        kept_values({"drawn_by": {"options": {"home": "/home/ada"}}}, "provenance")


def test_every_argument_of_a_verb_that_draws_is_listed() -> None:
    for verb in ("heatmap", "engagement", "lens", "routes", "peaks3d", "compare"):
        given = dict.fromkeys(signature(getattr(stratoscope, verb)).parameters, "x")
        assert {f"drawn_by.options.{name}" for name in drawn_by(verb, given).options} <= set(KEYS), verb
    for verb in ("contrast", "suppression", "anomalies", "diff", "comparison"):
        files = {"inputs", "trace", "trace_a", "trace_b", "columns", "progress"}
        given = set(signature(getattr(stratoscope, verb)).parameters) - files
        assert {f"parameters.parameters.{name}" for name in given} <= set(KEYS), verb


def test_what_names_the_trace_or_a_file_is_kept_by_no_level() -> None:
    assert not KEYS["provenance.uuid"]
    assert not KEYS["drawn_by.options.claims"]
    assert KEYS["drawn_by.options.title"] == (names.PROVENANCE,)


# --- rewritten --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_its_trace_a_picture_keeps_what_is_drawn_and_loses_what_it_says(
    drawn: Draw, trace: xr.Dataset, tmp_path: Path, suffix: str
) -> None:
    source, out = drawn("heatmap", suffix), tmp_path / f"out{suffix}"
    (told,) = publish_picture(source, out, "provenance")
    assert "picture itself is as it was" in told
    said = said_by(out)
    assert said["provenance"]["published"] == "provenance"
    assert any("Who and where are gone" in note["text"] for note in said["notes"])
    assert trace.attrs["uuid"] in json.dumps(said_by(source))
    assert not found_in(out, [trace.attrs["uuid"], SECRET])
    assert shapes(out) == shapes(source)


def shapes(path: Path) -> Any:
    """What is drawn in a file."""
    if path.suffix == ".png":
        return np.asarray(Image.open(path)).tobytes(), Image.open(path).info["dpi"]
    if path.suffix == ".pdf":
        return sorted(one.stream for one in pdf_objects.read(path.read_bytes()).objects.values() if one.stream)
    numbered, space = re.compile(r"#[\w-]+"), "{http://www.w3.org/2000/svg}"
    return [
        (one.tag, (one.text or "").strip(), sorted((name, numbered.sub("#", value).rstrip("; "))
         for name, value in one.attrib.items() if name not in ("id", "type") and "base64" not in value))
        for one in ElementTree.parse(path).getroot().iter()
        if one.tag.startswith(space) and one.tag != f"{space}metadata"
    ]  # fmt: skip


def planted(path: Path) -> bytes:
    """The file with a marker wherever a file of its kind can hide one."""
    data, mark = path.read_bytes(), SECRET.encode()
    if path.suffix == ".png":
        chunks = b"".join(
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
            for kind, body in (
                (b"tEXt", b"Author\0" + mark),
                (b"eXIf", mark),
                (b"zTXt", b"a\0\0" + zlib.compress(mark)),
            )
        )
        return data[:33] + chunks + data[33:] + mark
    if path.suffix == ".svg":
        more = (
            f"<!-- {SECRET} --><title>{SECRET}</title><foreignObject>{SECRET}</foreignObject><script>{SECRET}</script>"
        )
        text = data.decode().replace(' id="figure_1"', f' id="{SECRET}" data-who="{SECRET}" onload="{SECRET}"')
        return text.replace("</metadata>", f"</metadata>{more}").encode()
    objects = dict(pdf_objects.read(data).objects)
    root, info = (pdf_objects.referred(pdf_objects.read(data).trailer[name]) for name in (b"Root", b"Info"))
    last = max(objects)
    for one in objects.values():
        if isinstance(one.value, dict) and b"Contents" in one.value:
            drawing = pdf_objects.referred(one.value[b"Contents"])
    objects[drawing] = pdf_objects.Object(
        objects[drawing].value, b"% " + mark + b"\n" + (objects[drawing].stream or b"")
    )
    assert isinstance(objects[root].value, dict)
    assert isinstance(objects[info].value, dict)
    xmp = pdf_objects.Object({b"Type": b"/Metadata", b"Subtype": b"/XML"}, mark)
    objects[root] = pdf_objects.Object(
        objects[root].value | {b"Metadata": b"%d 0 R" % (last + 1), b"Lang": b"(%s)" % mark}
    )
    objects[info] = pdf_objects.Object(objects[info].value | {b"Author": b"(%s)" % mark})
    return pdf_objects.written({**objects, last + 1: xmp}, root, info)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_that_hides_in_a_file_goes_on(drawn: Draw, tmp_path: Path, suffix: str) -> None:
    source, out = tmp_path / f"planted{suffix}", tmp_path / f"out{suffix}"
    source.write_bytes(planted(drawn("heatmap", suffix)))
    assert found_in(source, [SECRET])
    publish_picture(source, out, "provenance")
    assert not found_in(out, [SECRET])


@pytest.mark.parametrize("verb", ["peaks3d", "routes"])
def test_a_page_is_rebuilt_of_its_view(drawn: Draw, trace: xr.Dataset, tmp_path: Path, verb: str) -> None:
    source, out = tmp_path / "page.html", tmp_path / "out.html"
    original = drawn(verb, ".html").read_text("utf-8")
    source.write_text(original.replace("</body>", f"<!-- {SECRET} --><p>{SECRET}</p></body>"), "utf-8")
    publish_picture(source, out, "provenance")
    uuid = trace.attrs["uuid"]
    assert uuid[:8] in original
    assert not found_in(out, [SECRET, uuid, uuid[:8]])
    assert "Who and where are gone" in out.read_text("utf-8")


# --- drawn anew -------------------------------------------------------------------------------------------------------

AT_NO_TEXT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "heatmap.png": ("heatmap", {"title": f"Of {SECRET}", "caption": "file"}),
    "heatmap.svg": ("heatmap", {"prompt": ["neutral-2"]}),
    "engagement.pdf": ("engagement", {"width": "85mm", "prompt": 1, "layers": [0]}),
    "rows.svg": ("heatmap", {"all_prompts": True, "rows": "prompts"}),
    "profile.svg": ("heatmap", {"profile": True}),
    "classes.svg": ("compare", {"prompt_class": ["neutral", "critical"]}),
    "routes.svg": ("routes", {"prompt": "neutral-1", "target": "Sorry"}),
    "routes.html": ("routes", {}),
    "peaks3d.html": ("peaks3d", {}),
}


@pytest.mark.parametrize("name", AT_NO_TEXT)
def test_without_text_a_picture_is_drawn_anew_and_names_no_prompt_and_no_token(
    drawn: Draw, trace: xr.Dataset, tmp_path: Path, name: str
) -> None:
    verb, asked = AT_NO_TEXT[name]
    out = tmp_path / name
    assert not publish_picture(drawn(verb, out.suffix, **asked), out, "no-text", trace=trace)
    texts = {str(text).strip() for text in trace["text"].values} - {"time"}  # a word of ours too
    secrets = [trace.attrs["uuid"], trace.attrs["uuid"][:8], SECRET, *map(str, trace["prompt_id"].values), "Sorry"]
    assert not found_in(out, [*secrets, *(text for text in texts if len(text) > 3)])
    promised = any(b"Not readable by eye" in one for one in contents(out))
    assert promised
    if asked.get("caption") == "file":
        assert "Not readable by eye" in out.with_suffix(".txt").read_text("utf-8")
        assert not found_in(out.with_suffix(".txt"), secrets)


@pytest.mark.parametrize("verb", ["lens", "compare"])
def test_with_its_trace_a_picture_is_drawn_anew_at_provenance_too(
    drawn: Draw, trace: xr.Dataset, tmp_path: Path, verb: str
) -> None:
    source, out = drawn(verb, ".svg"), tmp_path / "out.svg"
    assert not publish_picture(source, out, "provenance", trace=trace)
    assert found_in(source, [trace.attrs["uuid"][:8]])
    assert not found_in(out, [trace.attrs["uuid"][:8], SECRET])
    assert found_in(out, ["critical"])


def test_figures_of_reports_are_drawn_anew_of_the_published_result(trace: xr.Dataset, tmp_path: Path) -> None:
    result = stratoscope.suppression(trace, prompt=0)
    figure = contents_of(result).figures()[0]
    spec = replace(figure.spec, drawn_by=drawn_by_result(result, figure.name))
    render(lambda look: replace(spec, look=look), tmp_path / "a.svg", spec.look, overwrite=False)
    assert found_in(tmp_path / "a.svg", ["critical-1", "Sorry"])
    publish_picture(tmp_path / "a.svg", tmp_path / "b.svg", "no-text", trace=trace)
    assert not found_in(tmp_path / "b.svg", ["critical-1", "Sorry", trace.attrs["uuid"]])
    assert found_in(tmp_path / "b.svg", ["Not readable by eye"])


def test_at_aggregate_the_class_profile_stands_in_the_place_of_single_tokens(
    simulated: xr.Dataset, tmp_path: Path
) -> None:
    def profiles(dataset: xr.Dataset, quantities: Sequence[str]) -> xr.DataTree:
        return class_profiles(dataset, quantities=quantities)

    stratoscope.heatmap(simulated, tmp_path / "a.svg", quantity="attn_write_ratio", width="120mm")
    public = public_picture(tmp_path / "a.svg", "aggregate", trace=simulated, profiles=profiles)
    public.write(tmp_path / "b.svg", overwrite=False)
    assert public.quantities == ("attn_write_ratio",)
    assert "no token and no prompt is drawn" in "".join(public.told)
    assert said_by(tmp_path / "b.svg")["provenance"]["published"] == "aggregate"
    assert found_in(tmp_path / "b.svg", ["about 30 prompts", "No single prompt is shown"])
    assert not found_in(tmp_path / "b.svg", ["critical-1", simulated.attrs["uuid"]])
    stratoscope.peaks3d(simulated, tmp_path / "a.html", prompt=0)
    with pytest.raises(InputError, match="only single tokens"):
        public_picture(tmp_path / "a.html", "aggregate", trace=simulated, profiles=profiles)


def test_the_same_is_drawn_of_the_published_trace(drawn: Draw, trace: xr.Dataset, tmp_path: Path) -> None:
    publish_picture(drawn("heatmap", prompt=["neutral-2"]), tmp_path / "a.png", "no-text", trace=trace)
    stratoscope.heatmap(published_trace(trace, "no-text"), tmp_path / "b.png", prompt=[3])
    np.testing.assert_array_equal(Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.png"))


# --- refused ----------------------------------------------------------------------------------------------------------


def refusal(*given: Any, **more: Any) -> str:
    with pytest.raises(InputError) as error:
        publish_picture(*given, **more)
    assert not Path(given[1]).exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_its_trace_only_provenance_can_be_published(drawn: Draw, trace: xr.Dataset, tmp_path: Path) -> None:
    assert "--trace" in refusal(drawn("heatmap"), tmp_path / "a.png", "no-text")
    other = trace.assign_attrs(uuid="another")
    assert "not drawn of this trace" in refusal(drawn("heatmap"), tmp_path / "a.png", "no-text", trace=other)


def test_what_a_level_does_not_keep_is_not_drawn(drawn: Draw, trace: xr.Dataset, tmp_path: Path) -> None:
    assert "cannot be drawn" in refusal(drawn("lens"), tmp_path / "a.png", "no-text", trace=trace)
    assert "by their texts" in refusal(drawn("compare"), tmp_path / "a.png", "no-text", trace=trace)
    assert "spans" in refusal(drawn("heatmap", span="user"), tmp_path / "a.png", "no-text", trace=trace)


def test_tokens_without_text_are_never_aligned(trace: xr.Dataset) -> None:
    public = published_trace(trace, "no-text")
    with pytest.raises(InputError, match="cannot be told apart"):
        stratoscope.comparison(public)
    assert peaks_spec(public).content.comparison is None
    assert peaks_spec(trace).content.comparison is not None


def test_what_was_published_already_is_refused(drawn: Draw, tmp_path: Path) -> None:
    for verb, suffix in (("heatmap", ".svg"), ("peaks3d", ".html")):
        publish_picture(drawn(verb, suffix), tmp_path / f"a{suffix}", "provenance")
        assert "published already" in refusal(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", "provenance")


def test_files_that_were_not_written_here_are_refused(drawn: Draw, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    (tmp_path / "other.svg").write_text('<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "other.pdf").write_bytes(drawn("heatmap", ".pdf").read_bytes() + b"1 0 obj\n<< >>\nendobj\n%%EOF\n")
    (tmp_path / "other.html").write_text("<!doctype html><title>x</title>")
    (tmp_path / "cut.png").write_bytes(drawn("heatmap").read_bytes()[:-20])
    for file in sorted(tmp_path.iterdir()):
        assert "as this version writes it" in refusal(file, tmp_path / f"out{file.suffix}", "provenance"), file
    assert "would be a .png file" in refusal(drawn("heatmap"), tmp_path / "a.pdf", "provenance")


def test_files_that_are_made_to_do_harm_are_refused(drawn: Draw, tmp_path: Path) -> None:
    deep = drawn("heatmap", ".svg").read_text("utf-8")
    (tmp_path / "deep.svg").write_text(deep.replace("</metadata>", f"</metadata>{'<g>' * 50_000}{'</g>' * 50_000}"))
    entity = deep.replace('svg11.dtd">', 'svg11.dtd" [<!ENTITY a "b">]>')
    (tmp_path / "entity.svg").write_text(entity)
    data = drawn("heatmap").read_bytes()
    for size in (b"\xff\xff\xff\xff", bytes(4)):
        header = b"IHDR" + size + size + data[24:29]
        changed = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
        (tmp_path / f"size{size[0]}.png").write_bytes(changed)
    file = pdf_objects.read(drawn("heatmap", ".pdf").read_bytes())
    root, info = (pdf_objects.referred(file.trailer[name]) for name in (b"Root", b"Info"))
    chain = {number: pdf_objects.Object({b"Kids": b"%d 0 R" % (number + 1)}) for number in range(1000, 20_000)}
    chain |= dict.fromkeys(range(max(file.objects) + 1, 1000), pdf_objects.Object(b"null"))
    pages = pdf_objects.Object({b"Type": b"/Catalog", b"Pages": b"1000 0 R"})
    (tmp_path / "deep.pdf").write_bytes(pdf_objects.written({**file.objects, **chain, root: pages}, root, info))
    for path in sorted(tmp_path.iterdir()):
        assert "as this version writes it" in refusal(path, tmp_path / f"out{path.suffix}", "provenance"), path


def test_a_picture_cannot_have_anything_else_done_than_be_drawn(drawn: Draw, trace: xr.Dataset, tmp_path: Path) -> None:
    source = drawn("compare", prompt_class=["critical", "neutral"])
    for options in ({"table": str(tmp_path / "written.csv")}, {"overwrite": True}, {"edges": 3}, {"width": {"a": 1}}):
        said = said_by(source)
        said["drawn_by"]["options"] |= options
        (tmp_path / "a.png").write_bytes(png.rewritten(source.read_bytes(), json.dumps(said)))
        refusal(tmp_path / "a.png", tmp_path / "b.png", "no-text", trace=trace)
    assert [one.name for one in tmp_path.iterdir()] == ["a.png"]


def test_damaged_and_lying_files_are_refused_in_one_line(drawn: Draw) -> None:
    rng = np.random.default_rng(0)
    for suffix, of in FORMATS.items():
        data = bytearray(drawn("heatmap", suffix).read_bytes())
        for _ in range(40):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                changed[place] = int(rng.integers(256))
            try:
                of.rewritten(bytes(changed), read_about(of.said(bytes(changed))).as_json())
            except NotOurs:
                continue
