"""A model object that somebody already holds, with the same identity a loaded one has."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stratoscope.errors import InputError
from stratoscope.model.files import ModelFiles
from stratoscope.model.load import LoadedModel, _identity, _tokenizer_identity


def given_model(model: nn.Module, tokenizer: Any) -> LoadedModel:
    """Wrap a Hugging Face model and its tokenizer; the hash is of the weights as they are in memory.

    Raises
    ------
    InputError
        The tokenizer is missing, or the model is in training mode, where dropout makes every run different.
    """
    if tokenizer is None:
        raise InputError("a model object needs its tokenizer", fix="Pass tokenizer=")
    if model.training:
        raise InputError("the model is in training mode", where=type(model).__name__, fix="Call model.eval() first")
    name = Path(getattr(model.config, "_name_or_path", "") or type(model).__name__).name
    files = ModelFiles(name=name, folder=Path(), weights=())
    return LoadedModel(model, tokenizer, _identity(model, files, _state_sha256(model)), _tokenizer_identity(tokenizer))


def _state_sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
