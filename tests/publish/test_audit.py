"""A written file is searched as a stranger would: whatever is left in it is found, however it is packed or spelt."""

from __future__ import annotations

import base64
import gzip
import io
import json
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import xarray as xr
from class_traces import different, trace_of

import stratoscope
from stratoscope import names
from stratoscope.publish.audit.allowed.allowed import UNLISTED
from stratoscope.publish.audit.audit import audit
from stratoscope.publish.audit.outcome import NOT_FOUND, Audit
from stratoscope.publish.audit.search.needles import IDS, LINKS, PROMPTS, RUNS, VALUES, of_original
from stratoscope.publish.audit.search.own_words import OwnWords
from stratoscope.trace.write.from_dataset import write_dataset

SECRET = "kalimba-Überzug-4711@quokkamail.example"
SAID = b'{"published": {"level": "no-text", "promise": "p"}}\n'


def kinds(found: Audit) -> set[str]:
    """What was found, but for what these files are: nothing that is published."""
    return {one.kind for one in found.findings} - {UNLISTED}


def packed_as_zip(text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", text)
    return file.getvalue()


SPELT: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "JSON": lambda text: json.dumps(text.decode()).encode(),
    "JSON in JSON": lambda text: json.dumps(json.dumps(text.decode())).encode(),
    "percent": lambda text: urllib.parse.quote(text).encode(),
    "entities": lambda text: "".join(f"&#{ord(one)};" for one in text.decode()).encode(),
    "UTF-16": lambda text: b"\x00\xff\x01" + text.decode().encode("utf-16-le") + b"\xff\x00\x00\x07",
    "UTF-16 big": lambda text: b"\x00\xff\x01\x01" + text.decode().encode("utf-16-be") + b"\xff\x00\x00\x07",
    "base64": lambda text: base64.b64encode(b"x" * 30 + text),
    "base64, begun elsewhere": lambda text: b"q" + base64.b64encode(b"x" * 31 + text),
    "base64 in lines": lambda text: base64.encodebytes(b"x" * 80 + text),
    "hexadecimal": lambda text: text.hex().encode(),
    "zlib": lambda text: b"\x00junk" + zlib.compress(text) + b"more",
    "behind another stream": lambda text: zlib.compress(b"first") + zlib.compress(text),
    "gzip in base64": lambda text: base64.b64encode(gzip.compress(text)),
    "zip": packed_as_zip,
    "zip without its end": lambda text: packed_as_zip(text)[:-30],
    "zstd": lambda text: b"\x01\x02" + numcodecs.zstd.compress(text),
    "blosc": lambda text: numcodecs.blosc.compress(text * 9, b"zstd", 5, 1),
    "behind the end of a PNG": lambda text: b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\xaeB`\x82" + text,
    "text chunk of a PNG": lambda text: b"\x89PNG\r\n\x1a\n\0\0\0\x64zTXtComment\0\0" + zlib.compress(text),
    "a string of a PDF": lambda text: b"%PDF-1.4\n1 0 obj (\xfe\xff" + text.decode().encode("utf-16-be") + b") endobj",
    "after binary": lambda text: np.random.default_rng(0).bytes(5000) + text + np.random.default_rng(1).bytes(5000),
}


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace whose texts and ids are found nowhere else."""
    path = tmp_path_factory.mktemp("audit") / "mine.trace"
    stratoscope.simulate(path, prompts=8, layers=2, d_model=16, d_ff=32, heads=2, record="norms")
    return path


@pytest.mark.parametrize("how", SPELT)
def test_an_address_is_found_however_it_is_packed(tmp_path: Path, how: str) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(SPELT[how](f"write to {SECRET} or to quokka.person@quokkamail.example today".encode()))
    assert "e-mail addresses" in kinds(audit(file))


def said_in(path: Path) -> tuple[str, str]:
    """Ids of prompts, and what one of them says."""
    trace = stratoscope.open_trace(path)
    of_user = (trace.prompt.values == 1) & (trace.span.values == names.SPANS.index("user"))
    return " ".join(trace.prompt_id.values), "".join(trace.text.values[of_user]).replace("\udce4", "")


@pytest.mark.parametrize("how", SPELT)
def test_what_a_prompt_says_is_found_however_it_is_packed(tmp_path: Path, original: Path, how: str) -> None:
    ids, text = said_in(original)
    file = tmp_path / "a.bin"
    file.write_bytes(SPELT[how](f"{ids} {text}".encode()))
    found = kinds(audit(file, original=original))
    assert {RUNS, PROMPTS} <= found


def test_tokens_in_cells_of_their_own_are_still_a_sentence(tmp_path: Path, original: Path) -> None:
    trace = stratoscope.open_trace(original)
    rows = "\n".join(f'{place},"{text}",22,0.5' for place, text in enumerate(trace.text.values[:20]))
    (tmp_path / "a.csv").write_text("Token_Pos,Token,Layer,Activation_Norm\n" + rows)
    (tmp_path / "a.svg").write_text("<svg>" + "".join(f"<text>·{one}</text>" for one in trace.text.values[:20]))
    assert all(RUNS in kinds(audit(tmp_path / name, original=original)) for name in ("a.csv", "a.svg"))


@pytest.mark.parametrize("dtype", ["<i4", "<i8", "<u2", ">i4"])
def test_token_ids_are_found_as_numbers_of_any_width(tmp_path: Path, dtype: str) -> None:
    ids = np.random.default_rng(5).integers(0, 40000, 40)
    trace = stratoscope.simulate(prompts=2, tokens=20, layers=1, record="norms")
    trace = trace.assign_coords(token_id=("token", ids.astype(np.int32)))
    needles = of_original(trace, OwnWords())
    assert needles.sought[IDS] == 2 * 14
    (tmp_path / "a.bin").write_bytes(b"abc" + ids[3:12].astype(dtype).tobytes())
    found = audit(tmp_path / "a.bin", original=_written(trace, tmp_path))
    assert IDS in kinds(found)


def _written(trace: xr.Dataset, folder: Path) -> Path:
    write_dataset(trace, folder / "t.trace")
    return folder / "t.trace"


def test_a_trace_tells_all_that_it_holds_and_its_sentences_are_not_told_of_another(
    tmp_path: Path, original: Path
) -> None:
    assert {RUNS, PROMPTS, LINKS, "times", "no level"} <= kinds(audit(original, original=original))
    other = trace_of(different(6), ["a"] * 6)
    assert kinds(audit(original, original=_written(other, tmp_path))) == {"no level", "times"}


def test_nothing_is_found_where_nothing_is_and_a_file_is_never_called_safe(tmp_path: Path, original: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(SAID + b'{"uuid": "2bad9d29-2091-4d0a-b367-26de1deb8fc8", "layer": [0, 1, 2]}')
    found = audit(file, original=original)
    assert (kinds(found), found.audited[0].level) == (set(), "no-text")
    assert found.last_line == f"Found: 1 thing that should not be there ({UNLISTED})."
    clean = Audit((), (), ())
    assert (clean.last_line, clean.to_json()["found"]) == (NOT_FOUND, False)


def test_what_links_it_to_the_original_is_found_as_text_and_as_bytes(tmp_path: Path, original: Path) -> None:
    uuid = stratoscope.open_trace(original).attrs["uuid"]
    for name, content in (("a", uuid.encode()), ("b", bytes.fromhex(uuid.replace("-", "")) + b"..")):
        (tmp_path / name).write_bytes(SAID + content)
        assert LINKS in kinds(audit(tmp_path / name, original=original))


def test_a_level_that_keeps_text_may_hold_text_and_no_time(tmp_path: Path, original: Path) -> None:
    ids, text = said_in(original)
    file = tmp_path / "a.txt"
    file.write_bytes(SAID.replace(b"no-text", b"provenance") + f"{ids} {text} 2026-11-27T21:55".encode())
    found = audit(file, original=original)
    assert kinds(found) == {"times"}
    assert next(one for one in found.looked if one.kind == RUNS).allowed > 0
    assert RUNS in kinds(audit(file, original=original, level="no-text"))


def test_parts_that_say_different_levels_are_told(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "a.json").write_bytes(SAID)
    (tmp_path / "r" / "b.json").write_bytes(SAID.replace(b"no-text", b"private"))
    assert kinds(audit(tmp_path / "r")) == {"two levels"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("/home/quokka/secret/run.py", "paths"),
        (r"C:\Users\quokka\run.py", "paths"),
        ("~/models/mine/run", "paths"),
        ("sk-proj-" + "aB3" * 9, "keys and passwords"),
        ("ghp_" + "aB3" * 12, "keys and passwords"),
        ("hf_" + "aB3" * 12, "keys and passwords"),
        ("AKIA" + "AB12" * 4, "keys and passwords"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "keys and passwords"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVm", "keys and passwords"),
        ("D:20261127215500Z", "times"),
        ("10.31.7.203", "addresses of computers"),
        ("2bad9d29-2091-4d0a-b367-26de1deb8fc8", "identifiers"),
    ],
)
def test_what_tells_who_where_and_when_is_found_without_the_original(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "a.txt").write_bytes(SAID + f"it is {text} there".encode())
    assert kinds(audit(tmp_path / "a.txt")) == {kind}


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_a_row_of_a_single_token_is_found_in_what_shows_means_alone(tmp_path: Path, dtype: str) -> None:
    trace = stratoscope.simulate(prompts=2, tokens=8, layers=6, record="norms", d_model=16, d_ff=32, heads=2)
    row = trace["mlp_out_norm"].values[3].astype(dtype).tobytes()
    (tmp_path / "a.bin").write_bytes(b"x" + zlib.compress(b"before" + row))
    original = _written(trace, tmp_path)
    assert VALUES in kinds(audit(tmp_path / "a.bin", original=original, level="aggregate"))
    assert VALUES not in kinds(audit(tmp_path / "a.bin", original=original, level="no-text"))
