"""Makes the archived trace of the present format version; run once per version: `python tests/archive/make.py`.

It writes `v<version>/trace`, and `v<version>/values.json` with what the trace must hold, taken from memory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "trace"))

from small_traces import ATTRS, as_dataset, merged, prompt_block  # noqa: E402

from stratoscope import names  # noqa: E402
from stratoscope.trace.format.schema import FORMAT_VERSION  # noqa: E402
from stratoscope.trace.format.shards import LOGICAL_DTYPE  # noqa: E402
from stratoscope.trace.write.from_dataset import write_dataset  # noqa: E402

_STREAMED = {"neurons": (5, 3, 6), "active_neurons": (5, 3, 4), "attention": (6 + 3, 3, 2)}


def dataset() -> xr.Dataset:
    """Two prompts with awkward tokens, a quantity of every shape and record group, and four imported rows."""
    variables = [
        name
        for name, row in names.QUANTITIES.items()
        if row.group in (*names.SUMMARIES, names.OUTCOME) and "nosink" not in name
    ]
    block = merged([prompt_block(0, ["<s>", "\udce4", "\n"], variables), prompt_block(1, ["", "שלום\0"], variables)])
    for name in variables:
        if block.arrays[name].dtype.kind == "f":
            block.arrays[name] = np.round(block.arrays[name] * 4) / 4
    block.arrays["peak_neuron"] = (block.arrays["peak_neuron"] % 6).astype(np.int32)
    block.arrays["peak_neuron"][1, 1, 1] = -1
    block.arrays["attn_received"][0] = np.nan
    random = np.random.default_rng(0)
    streamed = {name: random.integers(-64, 64, shape) / 8 for name, shape in _STREAMED.items()}
    remarks = np.array(["a", "", "=1", "\udcff"], dtype=object)
    return as_dataset(block, variables).assign(
        row_token=("row", np.array([0, 0, 2, 4])),
        row_layer=("row", np.array([0, 1, 2, 0], np.int32)),
        row_neuron=("row", np.array([5, 4, 3, 2], np.int32)),
        imported_norm=("row", np.array([0.1, 1e300, 0.0, 2.5])),
        floor_batch_neuron_norm=("layer", np.array([0.0, 0.25, 1.0], np.float32)),
        floor_dtype_neuron_norm=("layer", np.array([0.0, 0.25, 1.5], np.float32)),
        floor_neuron_norm=("layer", np.array([0.0, 0.25, 1.5], np.float32)),
        floor_resid_norm=("depth", np.array([0.0, 0.0, 0.5, np.nan], np.float32)),
        char_start=("token", np.array([-1, 0, 0, 0, 0], np.int32)),
        char_end=("token", np.array([-1, 1, 1, 0, 5], np.int32)),
        neurons=(("token", "layer", "neuron"), streamed["neurons"].astype(np.float32), {LOGICAL_DTYPE: "bfloat16"}),
        active_neurons=(("token", "layer", "active"), streamed["active_neurons"].astype(np.float32)),
        attention=(("edge", "layer", "head"), streamed["attention"].astype(np.float16)),
        column_0=xr.Variable(("row",), remarks, {"column": "Remark"}, fastpath=True),
    )


def main() -> None:
    """Write the folder of the present version, which must not exist."""
    folder = HERE / f"v{FORMAT_VERSION}"
    folder.mkdir()
    made = dataset()
    write_dataset(made.assign_attrs(ATTRS), folder / "trace")
    values = {str(name): variable.values.tolist() for name, variable in made.variables.items()}
    (folder / "values.json").write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
