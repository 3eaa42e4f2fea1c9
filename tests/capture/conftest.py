from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_model import smollm2_folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Any]:
    """Record a tiny model: `record("Llama", ("norms",), padding_side="left")` gives model and trace."""
    pytest.importorskip("torch")
    from tiny import TEXTS, byte_tokenizer, tiny

    from stratoscope import capture

    def run(
        family: str, groups: tuple[str, ...], *, texts: Any = TEXTS, padding_side: str = "right", dtype: Any = None,
        **options: Any,
    ) -> Any:  # fmt: skip
        model = tiny(family, *([dtype] if dtype else []))
        out = tmp_path / f"{family}-{padding_side}.trace"
        return model, capture(model, texts, out, record=groups, tokenizer=byte_tokenizer(padding_side), **options)

    return run


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2 as a folder of safetensors."""
    return smollm2_folder()


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with its tokenizer, as `save_pretrained` writes it."""
    pytest.importorskip("torch")
    from tiny import byte_tokenizer, tiny

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny("Llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "tiny-llama"))


@pytest.fixture
def user_precision() -> Iterator[None]:
    """A test may tell torch how precisely to multiply matrices; afterwards that is as it was."""
    torch = pytest.importorskip("torch")
    kept = [backend.matmul.fp32_precision for backend in (torch.backends.cuda, torch.backends.mkldnn)]
    yield
    torch.set_float32_matmul_precision("highest")
    for backend, precision in zip((torch.backends.cuda, torch.backends.mkldnn), kept, strict=True):
        backend.matmul.fp32_precision = precision
