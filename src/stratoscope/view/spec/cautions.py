"""What must not be concluded from some quantities: said in the same words in every kind of picture."""

from __future__ import annotations

from stratoscope.trace.notes import INFO, Note

RAW_NORM = Note("L07", INFO, "Raw L2 norms grow with depth: do not rank layers by them, use the write ratios.")
ROWS_OF_A_FILE = Note("L08", INFO, "Means of the rows in the file: a neuron that is not in it is unknown, not zero.")
ONLY_PEAKS = Note("L08", INFO, "Only recorded peaks: a neuron that is not among them is not zero.")
