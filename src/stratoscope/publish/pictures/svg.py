"""An SVG rebuilt of the shapes and texts that pictures of ours are made of; all other parts of the file stay behind."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from stratoscope.publish.pictures import png
from stratoscope.publish.pictures.about import NotOurs
from stratoscope.view.matplotlib.save import KEY

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_DESCRIPTION = ".//{http://purl.org/dc/elements/1.1/}description"
_HEAD = re.compile(
    rb'<\?xml version="1\.0" encoding="utf-8"(?: standalone="no")?\?>\s*'
    rb'<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1\.1//EN"\s+"http://www\.w3\.org/Graphics/SVG/1\.1/DTD/svg11\.dtd">\s*'
    rb"<svg "
)  # no entity can be declared in it
_STYLE = "*{stroke-linejoin: round; stroke-linecap: butt}"
_PNG = "data:image/png;base64,"
_HREF = f"{{{_XLINK}}}href"

_NUMBER = r"-?[\d.]+(?:e-?\d+)?"
_LENGTH = re.compile(rf"{_NUMBER}(?:pt|px|%)?")
_NUMBERS = re.compile(rf"[MLQCZHV\s,]*(?:{_NUMBER}[MLQCZHVz\s,]*)*")
_TRANSFORM = re.compile(rf"(?:(?:matrix|translate|rotate|scale)\((?:{_NUMBER}[\s,]*)+\)\s*)*")
_WORD = re.compile(r"[a-zA-Z-]+|#[0-9a-f]{6}|\d{3}|1\.1")
_URL = re.compile(r"url\(#([^)\s]+)\)")
_FONT = re.compile(r"[\w '\",-]+")
_ATTRIBUTES: Mapping[str, re.Pattern[str]] = {  # and what may stand in each; ids and references are numbered anew
    "x": _LENGTH, "y": _LENGTH, "width": _LENGTH, "height": _LENGTH, "d": _NUMBERS, "viewBox": _NUMBERS,
    "transform": _TRANSFORM, "fill": _WORD, "patternUnits": _WORD, "version": _WORD,
}  # fmt: skip
_PROPERTIES: Mapping[str, re.Pattern[str]] = {  # of the attribute `style`
    **dict.fromkeys(("fill", "stroke", "stroke-linejoin", "stroke-linecap", "font-weight", "text-anchor"), _WORD),
    **dict.fromkeys(("opacity", "fill-opacity", "stroke-opacity", "stroke-width", "font-size"), _LENGTH),
    **dict.fromkeys(("stroke-dasharray", "stroke-dashoffset"), _NUMBERS),
    "font-family": _FONT,
}  # fmt: skip
_ELEMENTS = ("svg", "g", "defs", "path", "use", "rect", "clipPath", "pattern", "image", "text", "style")
_META = {
    "xmlns:rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "xmlns:dc": "http://purl.org/dc/elements/1.1/",
    "xmlns:cc": "http://creativecommons.org/ns#",
}


def said(data: bytes) -> str:
    """The text that an SVG of ours carries.

    Raises
    ------
    NotOurs
        It carries none, or is no SVG of the kind that is written here.
    """
    found = _root(data).findall(_DESCRIPTION)
    text = found[0].text if len(found) == 1 else None
    if text is None or not text.startswith(f"{KEY}: "):
        raise NotOurs("it does not carry how it was made")
    return text.removeprefix(f"{KEY}: ")


def rewritten(data: bytes, text: str) -> bytes:
    """The same shapes and texts, with this text in place of all that the file says.

    Raises
    ------
    NotOurs
        It is no SVG of the kind that is written here.
    """
    root = _root(data)
    numbers = {name: f"i{number}" for number, name in enumerate(one.get("id") for one in root.iter()) if name}
    again = _rebuilt(root, numbers)
    again.attrib = {"xmlns": _SVG, "xmlns:xlink": _XLINK, **again.attrib}
    again.insert(0, _metadata(text))
    ElementTree.indent(again, " ")
    head = data[: data.index(b"<svg ")]
    drawing: bytes = ElementTree.tostring(again, "utf-8", xml_declaration=False)
    return head + drawing + b"\n"


def _root(data: bytes) -> Element:
    if not _HEAD.match(data):
        raise NotOurs("it does not begin as an SVG that is written here")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError:
        raise NotOurs("it is no well-formed XML") from None


def _rebuilt(given: Element, numbers: Mapping[str, str]) -> Element:
    """An element with what is known of it and in it."""
    name = _local(given.tag)
    again = Element(name, dict(_attributes(given, numbers)))
    if name == "text":
        again.text = given.text
    elif name == "style":
        again.text = _STYLE if (given.text or "").strip() == _STYLE else None
    again.extend([_rebuilt(one, numbers) for one in given if _local(one.tag) in _ELEMENTS])
    return again


def _local(tag: object) -> str:
    """The name of an element of SVG; "" of any other."""
    space = f"{{{_SVG}}}"
    return tag.removeprefix(space) if isinstance(tag, str) and tag.startswith(space) else ""


def _attributes(given: Element, numbers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The attributes that are known; a known one that holds what is never written here is refused."""
    for name, value in given.attrib.items():
        if name == "id":
            yield "id", numbers[value]
        elif name == "style":
            yield "style", "; ".join(_styled(value, numbers))
        elif name == "clip-path":
            yield "clip-path", _reference(value, numbers)
        elif name == _HREF:
            is_image = value.startswith(_PNG)
            yield (
                "xlink:href",
                _PNG + _bare(value.removeprefix(_PNG)) if is_image else f"#{_number(value[1:], numbers)}",
            )
        elif name in _ATTRIBUTES:
            yield name, _sound(value, _ATTRIBUTES[name])


def _styled(style: str, numbers: Mapping[str, str]) -> Iterator[str]:
    for part in style.split(";"):
        name, _, value = (word.strip() for word in part.partition(":"))
        if name in _PROPERTIES:
            is_reference = value.startswith("url(")
            yield f"{name}: {_reference(value, numbers) if is_reference else _sound(value, _PROPERTIES[name])}"


def _sound(value: str, expected: re.Pattern[str]) -> str:
    if not expected.fullmatch(value):
        raise NotOurs("something in it is drawn otherwise than here")
    return value


def _reference(value: str, numbers: Mapping[str, str]) -> str:
    found = _URL.fullmatch(value)
    return f"url(#{_number(found[1] if found else '', numbers)})"


def _number(name: str, numbers: Mapping[str, str]) -> str:
    if name not in numbers:
        raise NotOurs("it refers to what is not in it")
    return numbers[name]


def _bare(image: str) -> str:
    """A PNG inside an SVG, of its pixels alone."""
    try:
        data = base64.b64decode(re.sub(r"\s", "", image), validate=True)
    except (binascii.Error, ValueError):
        raise NotOurs("an image in it is damaged") from None
    return base64.b64encode(png.rewritten(data, "")).decode("ascii")


def _metadata(text: str) -> Element:
    """The metadata as they are written here."""
    metadata = Element("metadata")
    of = ElementTree.SubElement(ElementTree.SubElement(metadata, "rdf:RDF", _META), "cc:Work")
    ElementTree.SubElement(of, "dc:type", {"rdf:resource": "http://purl.org/dc/dcmitype/StillImage"})
    ElementTree.SubElement(of, "dc:description").text = f"{KEY}: {text}"
    ElementTree.SubElement(of, "dc:format").text = "image/svg+xml"
    return metadata
