"""What is audited may be made to do harm: it can at worst end in a finding, in little memory and in little time."""

from __future__ import annotations

import os
import socket
import zlib
from pathlib import Path

import numcodecs
import pytest

from stratoscope.errors import InputError
from stratoscope.publish.audit.allowed.allowed import UNLISTED
from stratoscope.publish.audit.audit import audit
from stratoscope.publish.audit.search import pdf, unpack

SAID = b'{"published": {"level": "no-text", "promise": "p"}}\n'


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shared"
    made.mkdir()
    (made / "a.json").write_bytes(SAID)
    return made


def kinds(path: Path) -> list[str]:
    """What was found, but for what these files are: nothing that is published."""
    return [one.kind for one in audit(path).findings if one.kind != UNLISTED]


def test_a_link_is_told_and_not_followed(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (tmp_path / "secret.txt").write_text("mail quokka@quokkamail.example")
    (made / "inside").symlink_to(tmp_path / "secret.txt")
    (made / "round").symlink_to(made)
    assert kinds(made) == ["links", "links"]


def test_hidden_files_and_leftovers_are_told_and_searched(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / ".DS_Store").write_text("mail quokka@quokkamail.example")
    (made / ".a.trace.old").mkdir()
    (made / "a.trace.lock").write_text("")
    (made / "c.0.1234abcd.partial").write_text("")
    assert sorted(kinds(made)) == ["e-mail addresses", "hidden files", "hidden files", "leftovers", "leftovers"]


def test_a_name_of_a_file_is_searched_too(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "quokka@quokkamail.example.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert kinds(made) == ["e-mail addresses"]


def test_a_pipe_or_a_socket_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    made = folder(tmp_path)
    os.mkfifo(made / "pipe")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(made / "s"))
        assert kinds(made) == ["what is no file", "what is no file"]
    for odd in ("/dev/zero", "/dev/null"):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            audit(odd)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (made / "b").write_text("x")
    (made / "b").chmod(0)
    assert kinds(made) == ["what cannot be read"]


def test_a_bomb_is_not_unpacked_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_LARGEST", 2**23)
    packer = zlib.compressobj(9)
    bomb = b"".join([*(packer.compress(bytes(2**20)) for _ in range(30)), packer.flush()])
    (tmp_path / "a.json").write_bytes(SAID + bomb)
    (tmp_path / "b.json").write_bytes(SAID + b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + bytes(100))
    chunk = b"\x02\x01\x21\x01" + (2**31).to_bytes(4, "little") + bytes(4) + b"\x40\0\0\0" + bytes(90)
    (tmp_path / "c.json").write_bytes(chunk)
    for name in ("a.json", "b.json"):
        assert kinds(tmp_path / name) == ["what could not be searched"]
    assert "what could not be searched" in kinds(tmp_path / "c.json")


def test_a_file_of_five_gigabytes_that_holds_nothing_is_done_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.write(SAID)
        file.truncate(5 * 2**30)
        file.seek(3 * 2**30)
        file.write(b"mail quokka@quokkamail.example")
    assert kinds(path) == ["e-mail addresses"]


def test_packed_in_packed_without_end_is_told(tmp_path: Path) -> None:
    content = b"at last"
    for _ in range(9):
        content = numcodecs.zstd.compress(b"x" + zlib.compress(content))
    (tmp_path / "a.json").write_bytes(SAID + content)
    assert {*kinds(tmp_path / "a.json")} == {"what could not be searched"}


def test_a_digit_that_is_no_octal_number_is_itself_in_a_pdf() -> None:
    assert pdf.said(rb"(a\8\101\)) Tj") == b"a8A)"
