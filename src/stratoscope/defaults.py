"""Every default that a verb and its command share, stated once."""

from __future__ import annotations

from stratoscope.names import NORMS, PEAKS, PROMPTS, RESIDUAL

RECORD = (NORMS, RESIDUAL, PEAKS, PROMPTS)
TOP_K = 10
BATCH_SIZE = 8
SEED = 0

QUANTITY = "mlp_out_norm"
THEME = "light"
SCALE = "robust"
HEAD = "mean"
