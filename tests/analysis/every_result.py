"""Results of every kind, made of small simulated traces: together they hold every table there is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from contribution_traces import model
from diff_traces import longer, of_model, simulated, with_floor
from truth_anomalies import SMALL, clean, plant_cell, unseen

import calibrations
import stratoscope
from route_traces import route_trace
from stratoscope.analysis.diff.claims import Claim
from stratoscope.analysis.suppression.suppression import suppression
from suppression_traces import explained


def contrasts() -> Iterator[xr.DataTree]:
    yield stratoscope.contrast(simulated(prompts=20, d_ff=24), groups=False, held_out=0.4, permutations=99)


def diffs() -> Iterator[xr.DataTree]:
    base = with_floor(of_model(simulated(), "one"))
    other = of_model(longer(base), "two")
    other["peak_neuron"].values[:, 2] = np.arange(base.sizes["peak"])  # other neurons than in the first
    yield stratoscope.diff(base, other, claims=[Claim(2, 7, 1.0, 2.0)])
    yield stratoscope.diff(model(tuned=False), model(tuned=True))


def anomalies() -> Iterator[xr.DataTree]:
    trace = clean(0, SMALL)
    plant_cell(trace, "mlp_out_norm", unseen(trace, "mlp_out_norm", np.random.default_rng(0)), 60)
    yield stratoscope.anomalies(trace)


def suppressions() -> Iterator[xr.DataTree]:
    trace = explained(prompts=8)
    trace.attrs["receipt"] = calibrations.receipt(neuron=calibrations.AGREE, mlp=calibrations.DISAGREE)
    yield suppression(trace, prompt=0)
    yield suppression(trace, permutations=99)


def compares() -> Iterator[xr.DataTree]:
    trace = simulated(prompts=6)
    yield stratoscope.comparison(trace.assign(peak_expert=xr.ones_like(trace["peak_neuron"])))


def routes() -> Iterator[xr.DataTree]:
    yield stratoscope.route_graph(route_trace(5, layers=2))


def lints() -> Iterator[xr.DataTree]:
    yield stratoscope.lint(simulated(prompts=2))


EVERY = {
    "contrast": contrasts,
    "diff": diffs,
    "anomalies": anomalies,
    "compare": compares,
    "lint": lints,
    "routes": routes,
    "suppression": suppressions,
}
