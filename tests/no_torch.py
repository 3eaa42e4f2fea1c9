"""A machine without torch: a pytest plugin (`PYTHONPATH=tests pytest -p no_torch`), and a module to import first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

ABSENT = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "gguf")


class _Absent(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname.split(".")[0])
        return None


already = sorted(set(sys.modules) & set(ABSENT))
if already:
    raise RuntimeError(f"{already} were imported before they could be hidden")
sys.meta_path.insert(0, _Absent())
