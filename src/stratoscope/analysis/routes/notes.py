"""What a reader of routes must know: what is not shown, what their weights are not, and how far effects are calibrated."""  # noqa: E501

from __future__ import annotations

from typing import TYPE_CHECKING

from stratoscope import names
from stratoscope.analysis.routes.recorded import unsplit
from stratoscope.analysis.values.explained import FIRST_ORDER
from stratoscope.trace.calibration import Calibration
from stratoscope.trace.notes import INFO, WARNING, Note, notes_of
from stratoscope.trace.targets import Targets
from stratoscope.words import agreeing, counted, number_ranges

if TYPE_CHECKING:
    import xarray as xr

NO_CAUSE = "What a stream is made of is not what an answer depends on: routes show sums, not effects."
OF_HEADS = "Edges are parts of heads: of edges none was ablated."
PASSED_ON = "An MLP mixes what it reads: what runs through it is passed on in the proportions of its input."


def notes(dataset: xr.Dataset, prompt: int, *, towards: bool, first_token: bool) -> list[Note]:
    """The notes of a route graph."""
    found = [note for note in notes_of(dataset) if note.severity == WARNING or note.id == "L16"]  # and what it promises
    if not first_token:
        found.append(Note("L05", INFO, "Edges from the first token are not shown, but counted."))
    kept = counted(dataset.sizes.get(names.ROUTE, 0), "edge")
    found.append(Note("L08", INFO, f"Only the {kept} of largest size into each token and layer are recorded."))
    if layers := unsplit(dataset, prompt):
        which = agreeing(len(layers), f"Layer {layers[0]} is", f"Layers {number_ranges(layers)} are")
        found.append(Note("L16", INFO, f"{which} not split by source token: what was brought there is rest."))
    if not towards:
        return [*found, Note("L09", INFO, NO_CAUSE), Note("L09", INFO, PASSED_ON)]
    calibration = Calibration.from_receipt(dataset.attrs.get("receipt"))
    sentence = calibration.sentence("head", "zero", Targets(dataset).number(0))
    return [*found, *(note for note in notes_of(dataset) if note.id == "L24"), Note("L28", INFO, FIRST_ORDER),
            Note("L28", INFO, sentence), Note("L28", INFO, OF_HEADS)]  # fmt: skip
