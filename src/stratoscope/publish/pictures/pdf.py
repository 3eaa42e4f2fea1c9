"""A PDF rebuilt of what its page is drawn with; attachments, forms and other data of the file stay behind."""

from __future__ import annotations

import re

from stratoscope.publish.pictures import pdf_objects
from stratoscope.publish.pictures.about import NotOurs
from stratoscope.publish.pictures.pdf_objects import Object, Pdf, Value, referred
from stratoscope.view.matplotlib.save import KEY

_BY_NAME = (b"Font", b"XObject", b"ExtGState", b"Pattern", b"Shading", b"CharProcs")  # parts by names of their own
_NAME = re.compile(rb"[\w.-]{1,100}")
_KEYS = frozenset(
    name
    for some in (
        b"Type Pages Kids Count Parent Resources MediaBox Contents ProcSet Procsets Subtype BaseFont CIDSystemInfo",
        b"Registry Ordering Supplement FontDescriptor W DW CIDToGIDMap Encoding Differences DescendantFonts ToUnicode",
        b"FontName Flags FontBBox Ascent Descent CapHeight XHeight ItalicAngle StemV FontFile2 MaxWidth Length1",
        b"FontMatrix FirstChar LastChar Widths CA ca PatternType PaintType TilingType BBox XStep YStep Matrix Width",
        b"Height ColorSpace SMask BitsPerComponent Filter DecodeParms Predictor Colors Columns Group S CS",
    )
    for name in some.split()
).union(_BY_NAME)
_OF_FONTS = (b"(Adobe)", b"(Identity)")
_DRAWN = (b"/Form", b"/Pattern")  # types of objects that are drawn by a stream of commands
_COMMENT = re.compile(rb"(\((?:[^()\\]|\\.)*\))|%[^\r\n]*", re.DOTALL)
_NO_COMMAND = re.compile(rb"<<|\bBI\b")  # lists of properties, and images inside the commands


def said(data: bytes) -> str:
    """The text that a PDF of ours carries.

    Raises
    ------
    NotOurs
        It carries none, or is no PDF of the kind that is written here.
    """
    file = pdf_objects.read(data)
    info = file.at(file.trailer.get(b"Info")).value
    if not isinstance(info, dict) or pdf_objects.plain_text(info.get(b"Keywords")) != KEY:
        raise NotOurs("it does not carry how it was made")
    return pdf_objects.plain_text(info.get(b"Subject"))


def rewritten(data: bytes, text: str) -> bytes:
    """The same drawing, with this text in place of all that the file says.

    Raises
    ------
    NotOurs
        It is no PDF of the kind that is written here.
    """
    file = pdf_objects.read(data)
    catalogue = file.at(file.trailer.get(b"Root")).value
    if not isinstance(catalogue, dict) or catalogue.get(b"Type") != b"/Catalog":
        raise NotOurs("it has no pages")
    kept = _Kept(file)
    root = kept.add(Object({b"Type": b"/Catalog", b"Pages": catalogue.get(b"Pages", b"null")}))
    info = kept.add_as_it_is(Object({b"Keywords": pdf_objects.text(KEY), b"Subject": pdf_objects.text(text)}))
    return pdf_objects.written(kept.objects, root, info)


class _Kept:
    """The objects that go on, numbered anew as they are first referred to."""

    def __init__(self, file: Pdf) -> None:
        self.objects: dict[int, Object] = {}
        self._file = file
        self._numbers: dict[int, int] = {}
        drawn = [one.value.get(b"Contents") for one in file.objects.values() if isinstance(one.value, dict)]
        self._contents = {referred(one) for one in drawn}

    def add(self, one: Object, *, commands: bool = False) -> int:
        """Take over what is known of an object, and all that it refers to."""
        number = self.add_as_it_is(one)
        value, stream = one.value, one.stream
        if isinstance(value, dict):
            commands = commands or value.get(b"Subtype") in _DRAWN or value.get(b"Type") in _DRAWN
        if stream is not None and commands:
            stream = _without_comments(stream)
        self.objects[number] = Object(self._known(value), stream)
        return number

    def add_as_it_is(self, one: Object) -> int:
        """Take over an object of our own making."""
        number = len(self.objects) + 1
        self.objects[number] = one
        return number

    def _known(self, value: Value, *, by_name: bool = False) -> Value:
        if isinstance(value, dict):
            known = {name: one for name, one in value.items() if name in _KEYS or (by_name and _NAME.fullmatch(name))}
            return {name: self._known(one, by_name=name in _BY_NAME) for name, one in known.items()}
        if isinstance(value, list):
            if len(value) == 4 and value[0] == b"/Indexed":  # its last item is a table of colours
                return value
            return [self._known(one) for one in value]
        if value.startswith(b"(") and value not in _OF_FONTS:
            raise NotOurs("it holds a text beside its drawing")
        if other := referred(value):
            return b"%d 0 R" % self._number_of(other, value, by_name=by_name)
        return value

    def _number_of(self, other: int, reference: Value, *, by_name: bool) -> int:
        """The new number of an object; of one that is met for the first time it is taken over."""
        if other not in self._numbers:
            one = self._file.at(reference)
            self._numbers[other] = len(self.objects) + 1
            if by_name and isinstance(one.value, dict) and one.stream is None:
                number = self.add_as_it_is(one)
                self.objects[number] = Object(self._known(one.value, by_name=True))
            else:
                self.add(one, commands=other in self._contents)
        return self._numbers[other]


def _without_comments(commands: bytes) -> bytes:
    """Commands as they are, without remarks between them."""
    found = _COMMENT.sub(lambda match: match[1] or b"", commands)
    if _NO_COMMAND.search(_COMMENT.sub(b"", found)):
        raise NotOurs("it is drawn otherwise than here")
    return found
