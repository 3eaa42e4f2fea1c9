"""Compiles src/stratoscope/kernels/*.c into one library for the wheel, if there is a C compiler.

The library is optional: without it every kernel's work is done by NumPy or torch, slower and with equal results. It is
plain C that Python's own headers have no part in, so one wheel serves every Python of a platform.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
OLDEST_GLIBC = (2, 17)  # of the tags that are in use; 2.17 is also the oldest for arm


class Kernels(BuildHookInterface):
    """Runs before a wheel or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the library into the wheel, or beside the sources of an editable install."""
        self._made = Path(tempfile.mkdtemp(prefix="stratoscope-"))
        try:
            self._add_kernels(version, build_data)
        except BaseException:
            shutil.rmtree(self._made, ignore_errors=True)  # nothing is finalised after this
            raise

    def _add_kernels(self, version: str, build_data: dict[str, Any]) -> None:
        folder = Path(self.root) / "src" / "stratoscope" / "kernels"
        beside = folder / "kernels.so"
        library = self._made / beside.name
        compiled = os.environ.get("STRATOSCOPE_KERNELS") != "0" and compile_kernels(folder, library)
        if version == "editable":
            if compiled:
                shutil.copyfile(library, staged := beside.with_suffix(".new"))
                staged.replace(beside)  # never written in place: somebody may have it loaded
            elif beside.exists() and any(path.stat().st_mtime > beside.stat().st_mtime for path in sources(folder)):
                print("stratoscope: the kernels are older than their sources and are removed", file=sys.stderr)
                beside.unlink()
        elif compiled:
            build_data["force_include"][str(library)] = "stratoscope/kernels/kernels.so"
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag(library)}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        shutil.rmtree(self._made, ignore_errors=True)


def sources(folder: Path) -> list[Path]:
    """What the library is made of."""
    return sorted([*folder.glob("*.c"), *folder.glob("*.h")])


def compile_kernels(folder: Path, library: Path) -> bool:
    """Compile the sources of a folder, if there is a compiler and they compile."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        return False
    files = [str(path) for path in sources(folder) if path.suffix == ".c"]
    try:
        done = subprocess.run(
            [*compiler.split(), *FLAGS, *files, "-lm", "-o", str(library)], capture_output=True, text=True
        )
        problem = done.stderr if done.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        print(f"stratoscope: the kernels do not compile and are left out:\n{problem}", file=sys.stderr)
    return not problem


def platform_tag(library: Path) -> str:
    """The platform of the wheel: on Linux every one whose C library has what the kernels take from it."""
    tags = list(platform_tags())
    tag = next((tag for tag in tags if not tag.startswith("linux_")), tags[0])  # which no index accepts
    if not tag.startswith("manylinux_"):
        return tag
    needed = re.findall(rb"GLIBC_(\d+)\.(\d+)", library.read_bytes())
    major, minor = max([OLDEST_GLIBC, *((int(one), int(other)) for one, other in needed)])
    architecture = re.sub(r"manylinux_\d+_\d+_", "", tag)
    return f"manylinux_{major}_{minor}_{architecture}"
