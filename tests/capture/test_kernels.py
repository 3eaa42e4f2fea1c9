"""Compiled kernels against float64 NumPy, on what hypothesis thinks of: odd widths, ties, NaN, infinities, zeros."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from stratoscope import kernels
from stratoscope.kernels import MOST_PEAKS, kernel, peaks_room
from stratoscope.recorder.reduce import products as reduce_products
from stratoscope.recorder.reduce.products import Products
from stratoscope.recorder.reduce.scratch import Scratch, norms_into

compiled = pytest.mark.skipif(kernel("norms_f32") is None, reason="no kernels: there was no C compiler at installation")
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])
SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}
ORDINARY = st.floats(-1e6, 1e6, width=32)
FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 1e-42])  # ties, and a number that is not normal
WILD = st.one_of(FEW, st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -1e-45]))


def matrices(numbers: st.SearchStrategy[float], widths: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, 4), widths)
    return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=numbers, fill=numbers))


def close(found: Tensor, wanted: np.ndarray, scale: np.ndarray | float = 1.0) -> None:
    """Equal to float32 rounding of a sum whose terms have that size."""
    finite = np.isfinite(wanted)
    error = np.abs(found.double().numpy()[finite] - wanted[finite])
    assert (error <= 1e-5 * np.maximum(np.abs(wanted), scale)[finite] + 1e-37).all()
    assert np.array_equal(np.isnan(found.numpy()), np.isnan(wanted))


@compiled
@settings(max_examples=150, deadline=None)
@given(matrices(st.one_of(ORDINARY, FEW), st.integers(1, 700)), DTYPES)
def test_norms_and_writes_are_those_of_float64(values: np.ndarray, dtype: torch.dtype) -> None:
    write = torch.from_numpy(values).to(dtype)
    base = write.flip(1).contiguous()
    alone = torch.full((len(values),), torch.nan)
    products = Products(["write"], 1, write.shape[1], Scratch(torch.device("cpu")))
    products.begin(len(values))
    products.add("write", 0, write, base)
    products.end_of_block(0)
    norm, dot, under = (found[0] for found in products.result("write"))
    norms_into(alone, write)
    exact, other = write.double().numpy(), base.double().numpy()
    with np.errstate(over="ignore"):
        sizes = np.linalg.norm(exact, axis=1), np.linalg.norm(other, axis=1)
    close(norm, sizes[0])
    close(alone, sizes[0])
    close(under, sizes[1])
    close(dot, (exact * other).sum(1), sizes[0] * sizes[1])


@pytest.mark.parametrize("rows", [40, 4000], ids=["side by side", "piece by piece"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_kernels_too_norms_keep_every_bit_however_torch_was_told_to_multiply_matrices(
    rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, user_precision: None
) -> None:
    monkeypatch.setattr(reduce_products, "kernel_for", lambda *_: None)
    torch.set_float32_matmul_precision("medium")
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(rows, 576, generator=draw).to(dtype) for _ in range(2))
    products = Products(["write"], 1, 576, Scratch(torch.device("cpu")))
    products.begin(rows)
    products.add("write", 0, a, b)
    products.end_of_block(0)
    norm, dot, under = (found[0].double() for found in products.result("write"))
    x, y = a.double(), b.double()
    for found, exact in ((norm, x.norm(dim=1)), (under, y.norm(dim=1))):
        assert float((found / exact - 1).abs().max()) <= 2e-7
    assert float(((dot - (x * y).sum(1)) / (x.norm(dim=1) * y.norm(dim=1))).abs().max()) <= 2e-7
    assert torch.get_float32_matmul_precision() == "medium"


@compiled
@settings(max_examples=100, deadline=None)
@given(matrices(WILD, st.integers(1, 200)))
def test_a_nan_in_a_row_is_seen_and_only_there(values: np.ndarray) -> None:
    norm = torch.zeros(len(values))
    norms_into(norm, torch.from_numpy(values))
    assert np.array_equal(np.isnan(norm.numpy()), np.isnan(values).any(1))
    assert not np.isfinite(norm.numpy()[~np.isfinite(values).all(1)]).any()


def peaks(a: Tensor, columns: Tensor, k: int) -> dict[str, Tensor]:
    """What the kernel finds."""
    rows, width = a.shape
    found = {name: torch.full((rows,), torch.nan) for name in ("norm", "write_norm")}
    found["neuron"] = torch.full((rows, k), -1, dtype=torch.int64)
    found |= {name: torch.full((rows, k), torch.nan) for name in ("value", "write")}
    run, room = kernel(f"peaks_{SUFFIX[a.dtype]}"), torch.empty(peaks_room(width), dtype=torch.float32)
    assert run is not None
    addresses = [tensor.data_ptr() for tensor in found.values()]
    run(a.data_ptr(), rows, width, columns.data_ptr(), k, room.data_ptr(), *addresses)
    return found


@compiled
@settings(max_examples=250, deadline=None)
@given(
    st.one_of(
        matrices(ORDINARY, st.sampled_from([1, 2, 63, 64, 65, 511, 512, 513, 1030])),
        matrices(FEW, st.integers(1, 1100)),
        matrices(WILD, st.integers(1, 600)),
    ),
    st.integers(1, MOST_PEAKS),
    DTYPES,
    st.integers(0, 2**32 - 1),
)
def test_the_strongest_are_those_of_a_stable_sort(values: np.ndarray, k: int, dtype: torch.dtype, seed: int) -> None:
    a = torch.from_numpy(values).to(dtype)
    k = min(k, a.shape[1])
    columns = torch.from_numpy(np.random.default_rng(seed).choice(np.float32([1, 1, 0.5, 3.7, 0]), a.shape[1]))
    found = peaks(a, columns, k)
    strength = (a.float() * columns).abs()
    ordered = strength.where(~strength.isnan(), torch.inf)  # a NaN comes first, before an infinity
    first = torch.stack((strength.isnan().int().float(), ordered), -1).numpy()
    for row in range(len(a)):
        wanted = sorted(range(a.shape[1]), key=lambda i: (-first[row, i, 0], -first[row, i, 1], i))[:k]
        nans = int(first[row, :, 0].sum())  # among themselves in any order
        got = found["neuron"][row].tolist()
        assert got[nans:] == wanted[nans:]
        assert nans == 0 or set(got[:nans]) <= set(np.flatnonzero(first[row, :, 0]).tolist())
    assert torch.equal(found["value"].nan_to_num(7), a.float().gather(1, found["neuron"]).nan_to_num(7))
    assert torch.equal(found["write"].nan_to_num(7), strength.gather(1, found["neuron"]).nan_to_num(7))
    if not np.isnan(values).any():
        with np.errstate(over="ignore", invalid="ignore"):
            close(found["norm"], np.sqrt((a.float().numpy() ** 2).sum(1, dtype=np.float64).astype(np.float32)))


@compiled
@settings(max_examples=100, deadline=None)
@given(matrices(ORDINARY, st.integers(1, 300)), st.integers(1, 12), DTYPES, st.booleans(), st.integers(0, 2**32 - 1))
def test_what_peaks_explain_is_that_of_float64(
    values: np.ndarray, k: int, dtype: torch.dtype, biased: bool, seed: int
) -> None:
    y, random = torch.from_numpy(values).to(dtype), np.random.default_rng(seed)
    rows, width = y.shape
    columns = torch.from_numpy(random.normal(size=(40, width)).astype(np.float32)).to(dtype)
    neuron = torch.from_numpy(random.integers(0, 40, (rows, k)))
    value = torch.from_numpy(random.normal(size=(rows, k)).astype(np.float32))
    bias = torch.from_numpy(biased * random.normal(size=width).astype(np.float32))
    dot, norm, room = torch.empty(rows), torch.empty(rows), torch.empty(width)
    run = kernel(f"explained_{SUFFIX[dtype]}")
    assert run is not None
    given_ = (y.data_ptr(), rows, width, bias.data_ptr(), columns.data_ptr(), k, neuron.data_ptr(), value.data_ptr())
    run(*given_, room.data_ptr(), dot.data_ptr(), norm.data_ptr())
    output = y.double().numpy() - bias.double().numpy()
    write = np.einsum("tk,tkd->td", value.double().numpy(), columns.double().numpy()[neuron.numpy()])
    least = 1e-13  # of a number whose square is a float32; a norm of smaller ones is 0
    close(norm, np.linalg.norm(output, axis=1), np.maximum(np.abs(y.double().numpy()).max(1), least))
    sizes = np.einsum("tk,tkd->td", np.abs(value.numpy()), np.abs(columns.double().numpy()[neuron.numpy()]))
    close(dot, (write * output).sum(1), (sizes * np.abs(output)).sum(1) + np.abs(y.double().numpy()).max(1))


@pytest.mark.parametrize(("switch", "said"), [("0", "none (STRATOSCOPE_KERNELS=0)"), ("1", None)])
def test_which_kernels_run_is_said(switch: str, said: str | None) -> None:
    words = [sys.executable, "-c", "from stratoscope import kernels; print(kernels.state())"]
    done = subprocess.run(words, env={**os.environ, kernels.SWITCH: switch}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (said or kernels.state())
