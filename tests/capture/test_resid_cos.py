"""`resid_cos` by every way that a quantity goes: recorded, replayed, with a floor, drawn, compared, simulated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from test_capture import run
from tiny import TEXTS, tiny

from stratoscope import diff, heatmap, names, simulate


def test_the_cosine_of_a_blocks_input_and_output_is_a_quantity_like_all_others(tmp_path: Path) -> None:
    trace = run(tmp_path / "t", prompts=TEXTS, record=(names.RESIDUAL, names.NORMS), floor=True, verify="full")
    cos = trace["resid_cos"].values
    assert cos.shape == trace["mlp_write_cos"].shape
    x, attn, mlp = (trace[name].values for name in ("resid_norm", "attn_write_norm", "mlp_write_norm"))
    # the triangle of x, what the block writes, and x': ‖x' − x‖ is at most what both writes have together
    apart = np.sqrt(np.maximum(0, x[:, 1:] ** 2 + x[:, :-1] ** 2 - 2 * x[:, 1:] * x[:, :-1] * cos))
    assert (apart <= (attn + mlp) * (1 + 1e-3)).all()
    *_, on_disk = trace.attrs["receipt"]["replays"]
    assert on_disk["largest_differences"]["resid_cos"] < 1e-4
    floors = {nuisance: trace[names.floor_name("resid_cos", nuisance)].values for nuisance in names.NUISANCES}
    assert floors["batch"].max() < 1e-3 < floors["dtype"].max()
    heatmap(tmp_path / "t", tmp_path / "t.png", quantity="resid_cos", prompt=0)
    other = run(tmp_path / "o", model=tiny("Gemma2"), prompts=TEXTS, record=(names.RESIDUAL, names.NORMS))
    assert "resid_cos" in diff(trace, other).attrs["summary"]["quantities"]


def test_the_simulated_cosine_obeys_the_law_of_cosines() -> None:
    trace = simulate(prompts=4, record=(names.RESIDUAL, names.NORMS))
    values = {str(name): value.values.astype(np.float64) for name, value in trace.data_vars.items()}
    ratio, cos = values["attn_write_ratio"], values["attn_write_cos"]
    before, after = values["resid_norm"][:, :-1], values["resid_norm"][:, 1:]
    middle = before * np.sqrt(1 + ratio**2 + 2 * ratio * cos)
    to_middle = (before + values["attn_write_norm"] * cos) / middle
    to_end = (middle + values["mlp_write_norm"] * values["mlp_write_cos"]) / after
    np.testing.assert_allclose(values["resid_cos"], to_middle * to_end, rtol=1e-4, atol=1e-5)
    assert (np.abs(values["resid_cos"]) <= 1).all()
