"""Compiles src/stratoscope/kernels/*.c into one library beside them, if there is a C compiler.

The library is optional: without it every kernel's work is done by NumPy or torch, slower and with equal results.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-std=c11", "-O3", "-fPIC", "-shared", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]


class Kernels(BuildHookInterface):
    """Runs before a wheel or an editable install is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the library into the wheel."""
        folder = Path(self.root) / "src" / "stratoscope" / "kernels"
        library = folder / "kernels.so"
        library.unlink(missing_ok=True)
        compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if self.target_name != "wheel" or compiler is None or os.environ.get("STRATOSCOPE_KERNELS") == "0":
            return
        sources = [str(path) for path in sorted(folder.glob("*.c"))]
        done = subprocess.run([compiler, *FLAGS, *sources, "-lm", "-o", str(library)], capture_output=True, text=True)
        if done.returncode:
            print(f"stratoscope: the kernels do not compile and are left out:\n{done.stderr}", file=sys.stderr)
            library.unlink(missing_ok=True)
            return
        build_data["artifacts"].append("src/stratoscope/kernels/kernels.so")
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
