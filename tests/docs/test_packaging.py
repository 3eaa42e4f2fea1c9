"""What is published installs on every Python, and its page on an index has nothing that leads nowhere."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
KERNELS = Path("src", "stratoscope", "kernels", "kernels.so")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with little in it, and a library that somebody has compiled there."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", "src/stratoscope/version.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / KERNELS.parent, tmp_path / KERNELS.parent, ignore=shutil.ignore_patterns("*.so", "__*"))
    (tmp_path / KERNELS).write_bytes(b"needs GLIBC_2.2.5 and GLIBC_2.29")
    return tmp_path


def build_wheel(checkout: Path, kind: str = "standard") -> tuple[str, dict[str, bytes]]:
    """Name and content of a wheel."""
    wheel = Path(next(WheelBuilder(str(checkout)).build(directory=str(checkout / "dist"), versions=[kind])))
    with zipfile.ZipFile(wheel) as packed:
        return wheel.name, {name: packed.read(name) for name in packed.namelist()}


@pytest.fixture
def compiler(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of the compiler, a copy of what is compiled: that it compiles is seen whenever it is installed."""
    shutil.copyfile(checkout / KERNELS, library := checkout / "compiled")
    script = checkout / "compiler.py"
    script.write_text(f"import shutil, sys; shutil.copyfile({str(library)!r}, sys.argv[sys.argv.index('-o') + 1])")
    monkeypatch.setenv("CC", f"{sys.executable} {script}")


@pytest.mark.skipif(sys.platform != "linux", reason="the tag is that of this machine")
@pytest.mark.usefixtures("compiler")
def test_a_wheel_with_kernels_serves_every_python_and_its_tag_is_one_that_an_index_accepts(checkout: Path) -> None:
    name, content = build_wheel(checkout)
    assert re.search(r"-py3-none-(manylinux_2_29|musllinux_\d+_\d+)_\w+\.whl$", name), name
    assert b"Tag: py3-none-" in next(text for path, text in content.items() if path.endswith("WHEEL"))
    assert "stratoscope/kernels/kernels.so" in content


@pytest.mark.usefixtures("compiler")
def test_the_page_on_an_index_has_no_link_or_picture_that_leads_nowhere(checkout: Path) -> None:
    _, content = build_wheel(checkout)
    page = next(text for path, text in content.items() if path.endswith("METADATA")).decode()
    assert re.findall(r"\]\((?!https?:)[^)]*\)", page) == []
    assert "docs/csv.md" in page, "what a link said is still there"


@pytest.mark.parametrize("kind", ["standard", "editable"])
def test_a_build_without_a_compiler_leaves_compiled_kernels_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    before = (checkout / KERNELS).read_bytes()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    name, content = build_wheel(checkout, kind)
    assert name.endswith("-py3-none-any.whl")
    assert not any(path.endswith(".so") for path in content)
    assert (checkout / KERNELS).read_bytes() == before


def test_kernels_that_are_older_than_their_sources_do_not_stay(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    os.utime(checkout / KERNELS, (0, 0))
    build_wheel(checkout, "editable")
    assert not (checkout / KERNELS).exists()


def test_the_source_archive_has_neither_our_checks_nor_old_traces(tmp_path: Path) -> None:
    archive = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with tarfile.open(archive) as packed:
        names = [name.partition("/")[2] for name in packed.getnames()]
    assert not [name for name in names if name.startswith((".ci", "tests/archive/v"))]
    assert {"pyproject.toml", "README.md", "LICENSE", "hatch_build.py", "src/stratoscope/kernels/rows.c"} <= {*names}


def test_a_build_where_every_platform_is_plain_linux_has_a_tag_and_one_that_fails_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import runpy

    hook = runpy.run_path(str(ROOT / "hatch_build.py"))
    names = hook["platform_tag"].__globals__
    monkeypatch.setitem(names, "platform_tags", lambda: iter(["linux_riscv64"]))
    assert hook["platform_tag"](tmp_path / "kernels.so") == "linux_riscv64"

    def broken(*_: object) -> bool:
        raise RuntimeError("no compiler")

    monkeypatch.setitem(names, "compile_kernels", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("STRATOSCOPE_KERNELS", raising=False)
    kernels = hook["Kernels"](str(ROOT), {}, None, None, "", "wheel")
    with pytest.raises(RuntimeError, match="no compiler"):
        kernels.initialize("standard", {})
    assert not list(tmp_path.iterdir())
