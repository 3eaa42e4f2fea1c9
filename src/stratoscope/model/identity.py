"""What a model and its tokenizer are, as JSON objects that are stored in every trace and hold no path."""

from __future__ import annotations

import hashlib
from typing import Any

from stratoscope.model.devices import devices_of
from stratoscope.model.files.model_files import ModelFiles

FLOAT = "none"  # the quantisation of a model that has none


def model_identity(model: Any, files: ModelFiles, digest: str, quantisation: str = FLOAT) -> dict[str, Any]:
    """Name, revision, sizes, dtype, device and implementations of a model.

    Parameters
    ----------
    files
        Where it came from.
    digest
        Hash of its weights.
    quantisation
        How the weights were stored, in words.
    """
    config = model.config.get_text_config()

    def known(*names: str) -> int | None:
        """The first of these numbers that is one: XLNet's context is −1."""
        values = (getattr(config, name, None) for name in names)
        return next((value for value in values if isinstance(value, int) and value > 0), None)

    heads = known("num_attention_heads")
    devices = devices_of(model)
    return {
        "name": files.name,
        "revision": files.revision,
        "weights_sha256": digest,
        "architecture": type(model).__name__,
        "d_model": known("hidden_size"),
        "d_ff": known("intermediate_size", "ffn_dim", "n_inner"),
        "n_layers": known("num_hidden_layers"),
        "n_heads": heads,
        "n_kv_heads": known("num_key_value_heads") or heads,
        "vocab": known("vocab_size"),
        "context": known("max_position_embeddings", "max_seq_len"),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": devices[0].type if len(devices) == 1 else " + ".join(map(str, devices)),
        "quantisation": quantisation,
        "attention_implementation": attention_implementation(model),
    }


def tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """Hash, class, size, chat template, padding and special tokens of a fast tokenizer."""
    return {
        "sha256": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "class": type(tokenizer).__name__,
        "vocab": len(tokenizer),
        "chat_template": tokenizer.chat_template,
        "padding_side": tokenizer.padding_side,
        "bos_token": tokenizer.bos_token,
        "eos_token": tokenizer.eos_token,
    }


def attention_implementation(model: Any) -> str:
    """Name of the attention implementation that the text model runs with; a model that also sees may have two."""
    return str(model.config.get_text_config()._attn_implementation)
