"""A file of claims is read as people have it, as files of activations are."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import pytest

from stratoscope.analysis.diff.claims import Claim, read_claims
from stratoscope.errors import InputError

PLAIN = "Layer,Neuron_ID,Old_Norm,New_Norm\n3,17,0.5,0.25\n4,2,1e-1,3\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.encode(),
        gzip.compress(PLAIN.encode()),
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-8-sig"),
        PLAIN.replace("\n", "\r\n").encode(),
    ],
    ids=["plain", "gzip", "UTF-16", "semicolons", "tabs", "CRLF"],
)
def test_claims_are_read_however_the_file_is_written(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "patch.csv").write_bytes(content)
    assert read_claims(tmp_path / "patch.csv") == [Claim(3, 17, 0.5, 0.25, 2), Claim(4, 2, 0.1, 3.0, 3)]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (PLAIN.replace(",", ";").replace("0.5", "0,5").encode(), "Old_Norm is '0,5'. Write decimal points"),
        (PLAIN.replace("17", '"1,017"').encode(), "Neuron_ID is '1,017'"),
        (PLAIN.replace("17", "1é7").encode("cp1252"), "line 2: the byte 0xE9 is not UTF-8"),
        (b"\xd0\xcf\x11\xe0", "an old Excel file"),
    ],
)
def test_claims_that_could_mean_something_else_are_refused(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "patch.csv").write_bytes(content)
    with pytest.raises(InputError, match=cause):
        read_claims(tmp_path / "patch.csv")


def test_a_long_norm_that_is_nearly_a_number_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "patch.csv").write_text(PLAIN.replace("0.5", "1" * 20_000 + "x"))
    begun = time.perf_counter()
    with pytest.raises(InputError, match="Old_Norm is '111"):
        read_claims(tmp_path / "patch.csv")
    assert time.perf_counter() - begun < 2, "it took half a minute"
