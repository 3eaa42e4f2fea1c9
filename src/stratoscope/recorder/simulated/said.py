"""What a simulated trace says of itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from stratoscope.names import ALL_POSITIONS, ANSWER_POSITION, LENSES, PRIVATE, SIMULATED
from stratoscope.recorder.simulated.model import LENS_NAMES, SimulatedModel
from stratoscope.recorder.simulated.published import Published
from stratoscope.trace.format.schema import PUBLISHED
from stratoscope.trace.labels import note, root_attributes
from stratoscope.trace.notes import INFO, SIMULATED_DATA, WARNING
from stratoscope.trace.targets import TOKEN_TEXTS
from stratoscope.version import __version__

_NOTE = f"{SIMULATED_DATA.text} What was planted where is listed in the trace."
_LIKE = (
    "Simulated from published averages: no number in it comes from one prompt. It is exactly as safe as those "
    "averages; no test on it says anything of the recording."
)
_NOISY = "Those averages carry noise: it shows in every curve, and as a difference between the classes."
_OWN = (
    "What was not published is the simulator's own: texts, first tokens, how tokens and prompts differ from each "
    "other, which neurons and heads are strong."
)
DTYPE = "float32"


def attributes(
    model: SimulatedModel, record: Sequence[str], planted: Collection[str], like: Published | None
) -> dict[str, Any]:
    """The root attributes of a simulated trace.

    Parameters
    ----------
    model
        The pretended model.
    record
        Names of the record groups.
    planted
        Kinds of planted things that they show.
    like
        What it resembles. Then everything that the attributes say follows from that and the plan, the uuid too.
    """
    shape = model.shape
    tokens = [int(model.lengths.min()), int(model.lengths.max())] if like else list(shape.tokens)
    said = root_attributes(
        SIMULATED,
        model={
            "name": "simulated",
            "architecture": "simulated",
            "d_model": shape.d_model,
            "d_ff": shape.d_ff,
            "n_layers": shape.layers,
            "n_heads": shape.heads,
            "dtype": DTYPE,
        },
        plan={
            "record": [*record],
            "top_k": shape.top_k,
            "seed": shape.seed,
            "prompts": shape.prompts,
            "tokens": tokens,
            **({} if shape.anomaly or like else {"anomaly": False}),
            **({"like": {"sha256": like.sha256, "level": like.level}} if like else {}),
            **_planned_targets(model),
            **_planned_lenses(model, record),
        },
        planted=model.planted(planted),
        **({TOKEN_TEXTS: model.token_texts} if shape.targets or LENSES in record else {}),
        notes=_notes(like),
    )
    return _of_a_look_alike(said, like) if like else said


def _notes(like: Published | None) -> list[dict[str, str]]:
    if like is None:
        return [note("L16", WARNING, _NOTE)]
    noisy = [note("L16", WARNING, _NOISY)] if like.level == PRIVATE else []
    return [note("L16", WARNING, _LIKE), *noisy, note("L16", INFO, _OWN)]


def _of_a_look_alike(said: dict[str, Any], like: Published) -> dict[str, Any]:
    """Without times, and with a uuid that is the same whenever the same is made."""
    said = {name: value for name, value in said.items() if name not in ("created", "finished")}
    made_of = json.dumps([said["plan"], said["model"], __version__], sort_keys=True)
    published = {"level": like.level, "promise": like.promise, "software": f"stratoscope {__version__}"}
    return {**said, "uuid": str(uuid5(NAMESPACE_OID, made_of)), PUBLISHED: published}


def _planned_targets(model: SimulatedModel) -> dict[str, object]:
    """As a recording's plan has them."""
    shape, (tokens, against) = model.shape, model.target_ids
    if not shape.targets:
        return {}
    pairs = zip(shape.targets, tokens, against, strict=True)
    named = [
        {"text": text, "token_id": token, "against": shape.against, "against_id": other} for text, token, other in pairs
    ]
    return {"targets": named, "positions": ANSWER_POSITION}


def _planned_lenses(model: SimulatedModel, record: Sequence[str]) -> dict[str, object]:
    """As a recording's plan has them."""
    if LENSES not in record:
        return {}
    positions = ALL_POSITIONS if model.shape.every_position else ANSWER_POSITION
    return {"lenses": [*LENS_NAMES], "lens_file": {"kind": SIMULATED}, "positions": positions}
