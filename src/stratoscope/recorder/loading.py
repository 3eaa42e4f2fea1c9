"""The model that a verb was given: one to be loaded, or one that somebody holds already. Torch is imported late."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

from stratoscope.errors import InputError
from stratoscope.progress import Progress, silent
from stratoscope.recorder.arguments import dtype_name

if TYPE_CHECKING:
    from stratoscope.model.load import LoadedModel


class OfModel(Protocol):
    """The arguments of a verb that are about its model, as those of `capture`."""

    @property
    def model(self) -> Any:
        """What was given: a name, a folder, a file or an object."""

    @property
    def dtype(self) -> Any:
        """A data type, or None."""

    @property
    def device(self) -> Any:
        """A device, or None."""

    @property
    def device_map(self) -> Any:
        """Devices of the layers, or None."""

    @property
    def revision(self) -> str | None:
        """Of a hub model."""

    @property
    def trust_remote_code(self) -> bool:
        """Whether code of the model may run."""

    @property
    def tokenizer(self) -> Any:
        """Of a model object."""

    @property
    def progress(self) -> Progress | None:
        """Told how far it is."""


def loaded_model(asked: OfModel) -> LoadedModel:
    """The model, ready to run.

    Raises
    ------
    InputError
        A model object is given with what only a model that is loaded can have.
    ModelError
        It cannot be loaded, or is wrapped.
    """
    options: dict[str, Any] = {
        "dtype": dtype_name(asked.dtype),
        "device": asked.device,
        "device_map": asked.device_map,
        "revision": asked.revision,
    }
    if isinstance(asked.model, str | os.PathLike):
        from stratoscope.model.load import load_model

        remote, progress = asked.trust_remote_code, asked.progress or silent
        return load_model(os.fspath(asked.model), **options, trust_remote_code=remote, progress=progress)
    for name, value in options.items():
        if value is not None:
            raise InputError(f"a model object has its own {name}", fix=f"Leave {name} out.")
    from stratoscope.model.from_object import given_model

    return given_model(asked.model, asked.tokenizer)
