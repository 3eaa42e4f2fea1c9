"""What must not be concluded from some quantities: said in the same words in every kind of picture."""

from __future__ import annotations

from stratoscope.trace.notes import INFO, Note
from stratoscope.trace.prompts import LEAST_QUERIES

RAW_NORM = Note("L07", INFO, "Raw norms grow with depth: compare layers by write ratios.")
ROWS_OF_A_FILE = Note("L08", INFO, "Means of the rows in the file: a neuron not in it is unknown, not zero.")
ONLY_PEAKS = Note("L08", INFO, "Only recorded peaks: a neuron not among them is not zero.")
SEEN_BY_FEW = f"fewer than {LEAST_QUERIES} later tokens can attend here"  # of means over later tokens (L02)
