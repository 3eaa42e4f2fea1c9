"""`simulate --like`: the shape of what was published, a function of it and the seed alone, labelled as simulated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from alike import how_alike
from published_profiles import CLASSES, USUAL, published_profiles

import stratoscope
from stratoscope import names
from stratoscope.analysis.results.result import store_result
from stratoscope.errors import InputError
from stratoscope.publish.profiles.duplicates import duplicates
from stratoscope.publish.profiles.profiles import class_profiles
from stratoscope.recorder.simulated.published import TAKEN
from stratoscope.recorder.simulated.vocabulary import WORDS

SMALL: dict[str, Any] = {"record": "norms,residual", "tokens": 8}
# how far a profile may be from the published one: norms and ratios in powers of two, the rest in its own unit
TOLERANCES = {"attn_entropy": 0.05, "attn_entropy_nosink": 0.05, "attn_first": 0.03, "attn_distance": 0.2,
              "attn_distance_nosink": 0.15, "neuron_norm": 0.15}  # fmt: skip
TOLERANCE = 0.05


@pytest.fixture(scope="module")
def all_profiles(simulated: xr.Dataset) -> xr.DataTree:
    return class_profiles(simulated, quantities=TAKEN)


@pytest.fixture(scope="module")
def look_alike(all_profiles: xr.DataTree) -> xr.Dataset:
    return stratoscope.simulate(like=all_profiles)


def stored(result: xr.DataTree, folder: Path) -> Path:
    folder.mkdir()
    store_result(result, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()}


def assert_alike(published: xr.DataTree, look: xr.Dataset) -> None:
    for name, alike in how_alike(published, look).items():
        assert alike.largest < TOLERANCES.get(name, TOLERANCE), name
        spread = np.ptp(published[f"profiles/{name}/mean"].values, axis=1).min()
        if spread > 3 * TOLERANCES.get(name, TOLERANCE):  # a flat curve correlates with nothing
            assert not alike.correlation < 0.99, name  # NaN: of too few layers to tell


# --- a function of the published file and the seed ------------------------------------------------------------------


def test_made_again_from_a_copy_of_the_published_file_every_byte_is_the_same(tmp_path: Path) -> None:
    published = stored(published_profiles(4), tmp_path / "published")
    elsewhere = shutil.copytree(published, tmp_path / "a" / "copy")
    stratoscope.simulate(tmp_path / "one.trace", like=published, **SMALL)
    stratoscope.simulate(tmp_path / "two.trace", like=elsewhere, **SMALL)
    one = contents(tmp_path / "one.trace")
    assert one == contents(tmp_path / "two.trace")
    assert not any(str(tmp_path).encode() in content for content in one.values())
    attrs = stratoscope.open_trace(tmp_path / "one.trace").attrs
    assert not {"created", "finished"} & set(attrs)


def test_another_seed_or_another_publication_is_another_trace() -> None:
    first = stratoscope.simulate(like=published_profiles(3), **SMALL)
    for other in (
        stratoscope.simulate(like=published_profiles(3), seed=1, **SMALL),
        stratoscope.simulate(like=published_profiles(3, noise=0.01), **SMALL),
    ):
        assert other.attrs["uuid"] != first.attrs["uuid"]
        assert (other["mlp_write_ratio"].values[1:5] != first["mlp_write_ratio"].values[1:5]).all()


# --- the shape of what was published --------------------------------------------------------------------------------


def test_its_class_profiles_are_the_published_ones(all_profiles: xr.DataTree, look_alike: xr.Dataset) -> None:
    assert_alike(all_profiles, look_alike)


@pytest.mark.parametrize(
    ("layers", "quantities", "model"),
    [(30, TAKEN, {"d_ff": 1536, "d_model": 576, "n_heads": 9}), (80, USUAL, {}), (1, USUAL, {})],
)
def test_shapes_far_from_the_usual_one_are_met(layers: int, quantities: Any, model: dict[str, int]) -> None:
    published = published_profiles(layers, quantities, tokens=24, **model)
    record = "norms,residual,attention" if "attn_first" in quantities else "norms,residual"
    look = stratoscope.simulate(like=published, record=record)
    assert look.sizes["layer"] == layers
    assert_alike(published, look)


def test_classes_differ_as_published() -> None:
    published = published_profiles(20, TAKEN)
    look = stratoscope.simulate(like=published, record="norms,residual")
    alike = how_alike(published, look)
    for name in ("mlp_write_ratio", "attn_write_ratio", "mlp_out_norm", "attn_write_norm"):
        assert alike[name].of_differences >= 0.98, name
    assert alike["resid_norm"].of_differences >= 0.95


def test_a_model_with_a_norm_behind_its_mlp_keeps_both_sizes() -> None:
    published = published_profiles(6)
    published["profiles/mlp_out_norm/mean"].values[...] += 4  # 16 times what is written
    look = stratoscope.simulate(like=published, **SMALL)
    assert_alike(published, look)
    assert np.allclose(look["mlp_out_norm"], 16 * look["mlp_write_norm"], rtol=0.05)


def test_prompts_and_tokens_may_be_others(all_profiles: xr.DataTree) -> None:
    look = stratoscope.simulate(like=published_profiles(2), prompts=6, tokens=(3, 5), record="norms")
    assert look["prompt_class"].values.tolist() == [CLASSES[0]] * 3 + [CLASSES[1]] * 3
    lengths = np.bincount(look["prompt"].values)
    assert lengths.min() >= 3
    assert lengths.max() <= 5
    usual = stratoscope.simulate(like=published_profiles(2, tokens=12), record="norms")
    assert (np.bincount(usual["prompt"].values) - 1).mean() == pytest.approx(12, abs=1)
    assert usual.sizes["prompt"] == 40


# --- legal, and consistent with itself ------------------------------------------------------------------------------


def test_quantities_are_consistent_with_each_other(look_alike: xr.Dataset) -> None:
    of = {name: look_alike[name].values.astype(float) for name in look_alike.data_vars}
    before = of["resid_norm"][:, :-1]
    assert np.allclose(of["attn_write_norm"], of["attn_write_ratio"] * before, rtol=1e-5)
    ratio, cos = of["attn_write_ratio"], of["attn_write_cos"]
    middle = before * np.sqrt(1 + ratio**2 + 2 * ratio * cos)
    assert np.allclose(of["mlp_write_norm"], of["mlp_write_ratio"] * middle, rtol=1e-5)
    ratio, cos = of["mlp_write_ratio"], of["mlp_write_cos"]
    after = middle * np.sqrt(1 + ratio**2 + 2 * ratio * cos)
    assert np.allclose(of["resid_norm"][:, 1:], after, rtol=1e-5)
    energy = (of["peak_write"] ** 2).sum(axis=-1)
    assert (of["neuron_norm"] >= np.sqrt((of["peak_value"] ** 2).sum(axis=-1)) * (1 - 1e-5)).all()
    assert (energy > 0).all()
    assert ((of["attn_first"] >= 0) & (of["attn_first"] <= 1)).all()


def test_lint_finds_no_more_than_in_any_simulation(simulated: xr.Dataset, look_alike: xr.Dataset) -> None:
    usual, found = ({note["id"] for note in stratoscope.lint(one).attrs["notes"]} for one in (simulated, look_alike))
    assert found <= usual | {"L06"}  # more tokens than a picture has columns


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_noise_of_a_private_publication_gives_legal_numbers(noise: float) -> None:
    published = published_profiles(12, TAKEN, noise=noise, level=names.PRIVATE)
    look = stratoscope.simulate(like=published, record="norms,residual,peaks,attention", tokens=8, prompts=8)
    for name in look.data_vars:
        if not name.startswith("attn_") or name.startswith("attn_write"):
            assert np.isfinite(look[name].values).all(), name
    assert (np.abs(look["mlp_write_cos"].values) <= 1).all()
    assert (np.abs(look["resid_cos"].values) <= 1 + 1e-6).all()
    assert ((look["attn_first"].values >= 0) & (look["attn_first"].values <= 1)).all()
    assert look.attrs["published"]["level"] == names.PRIVATE
    assert any("carry noise" in note["text"] for note in look.attrs["notes"])


def test_bands_of_layers_of_a_private_publication_are_drawn_across() -> None:
    published = published_profiles(12, ("mlp_write_ratio",), level=names.PRIVATE)
    wanted = published["profiles/mlp_write_ratio/mean"].values
    published["profiles/mlp_write_ratio"] = xr.DataTree(
        published["profiles/mlp_write_ratio"].to_dataset().isel(layer=[1, 4, 7, 10])
    )
    published["classes"] = xr.DataTree(published["classes"].to_dataset().drop_vars("tokens"))
    look = stratoscope.simulate(like=published, record="norms")
    found = class_profiles(look, quantities=["mlp_write_ratio"])["profiles/mlp_write_ratio/mean"].values
    assert np.abs(found - wanted)[:, [1, 4, 7, 10]].max() < TOLERANCE
    assert np.abs(found - wanted)[:, 1:11].max() < 0.25


def test_no_prompt_is_a_near_duplicate_of_another(look_alike: xr.Dataset) -> None:
    assert len(set(duplicates(look_alike, range(look_alike.sizes["prompt"])).tolist())) == look_alike.sizes["prompt"]


def test_groups_that_no_average_is_about_are_the_simulators_own() -> None:
    record = "norms,peaks,prompts,neurons,attention-full"
    look = stratoscope.simulate(like=published_profiles(2), record=record, tokens=5, prompts=4, top_k=3)
    assert look["peak_neuron"].shape[-1] == 3
    assert look["attention"].shape[-1] == 3  # the published heads


# --- labelled -------------------------------------------------------------------------------------------------------


def test_it_says_what_it_is_made_of_and_what_is_its_own(look_alike: xr.Dataset) -> None:
    assert look_alike.attrs["source"] == "simulated"
    assert {look_alike[name].attrs["source"] for name in look_alike.data_vars} == {"simulated"}
    first, second = (note["text"] for note in look_alike.attrs["notes"])
    assert first.startswith("Simulated from published averages: no number in it comes from one prompt.")
    assert "exactly as safe as those averages; no test on it says anything of the recording" in first
    assert "the simulator's own" in second
    assert look_alike.attrs["published"]["promise"].startswith("No single prompt is shown.")
    like = look_alike.attrs["plan"]["like"]
    assert like["level"] == names.AGGREGATE
    assert len(like["sha256"]) == 64
    assert look_alike.attrs["model"]["name"] == "simulated"
    assert all(one.startswith("simulated-") for one in look_alike["prompt_id"].values)
    assert set(look_alike["text"].values) <= set(WORDS)
    assert set(look_alike["prompt_class"].values) == {"critical", "neutral"}
    assert {one["kind"] for one in look_alike.attrs["planted"]} == {"sink"}


def test_an_audit_finds_nothing_in_it_and_more_where_it_was_changed(simulated: xr.Dataset, tmp_path: Path) -> None:
    trace = tmp_path / "x.trace"
    stratoscope.simulate(trace, like=published_profiles(2), tokens=6, prompts=4)
    assert not stratoscope.audit(trace, original=simulated).findings
    document = trace / "zarr.json"
    document.write_text(document.read_text().replace('"seed"', '"who"', 1))
    assert stratoscope.audit(trace, original=simulated).findings


@pytest.mark.parametrize("verb", ["heatmap", "engagement"])
def test_every_picture_says_simulated(verb: str, tmp_path: Path) -> None:
    look = stratoscope.simulate(like=published_profiles(4), tokens=6, record="norms,residual")
    getattr(stratoscope, verb)(look, out=tmp_path / "x.svg")
    drawn = (tmp_path / "x.svg").read_text("utf-8")
    assert "SIMULATED" in drawn
    assert "Simulated from published averages" in drawn


# --- refused --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["layers", "d_model", "d_ff", "heads"])
def test_sizes_of_the_model_are_the_published_ones(size: str) -> None:
    with pytest.raises(InputError, match="published sizes"):
        stratoscope.simulate(like=published_profiles(2), **{size: 3})


@pytest.mark.parametrize("group", ["logits", "effects", "lens", "routes"])
def test_groups_that_would_be_invented_are_refused_by_name(group: str) -> None:
    with pytest.raises(InputError, match=f"say nothing of {group}"):
        stratoscope.simulate(like=published_profiles(2), record=f"norms,{group}")
    with pytest.raises(InputError, match="no targets"):
        stratoscope.simulate(like=published_profiles(2), targets=["Sorry"])


def _mean(name: str, value: float) -> Any:
    def change(result: xr.DataTree) -> None:
        result[f"profiles/{name}/mean"].values[...] = value

    return change


def _summary(**more: Any) -> Any:
    def change(result: xr.DataTree) -> None:
        result.attrs["summary"] = {**result.attrs["summary"], **more}

    return change


def _table(path: str, **columns: Any) -> Any:
    def change(result: xr.DataTree) -> None:
        table = result[path].to_dataset()
        result[path] = xr.DataTree(table.assign({name: (table[name].dims, value) for name, value in columns.items()}))

    return change


HOSTILE = {
    "another kind": lambda result: result.attrs.update(kind="anomalies"),
    "no numbers": _mean("resid_norm", np.nan),
    "endless": _mean("mlp_write_ratio", np.inf),
    "huge": _mean("mlp_write_ratio", 1e30),
    "another level": _summary(level="no-text"),
    "no level": _summary(level=None),
    "a million layers": _summary(model={"n_layers": 10**6}),
    "a negative width": _summary(model={"d_ff": -1}),
    "too many neurons": _summary(model={"d_ff": 10**9}),
    "a width of text": _summary(model={"d_model": "64"}),
    "no prompts": _table("classes", prompts=np.zeros(2, int)),
    "endless traces": _table("classes", prompts=np.full(2, 10**6), tokens=np.full(2, 10**5)),
    "endless prompts": _table("classes", tokens=np.full(2, 10**12)),
    "one class twice": _table("classes", prompt_class=np.array(["a", "a"], object)),
    "other classes": _table("profiles/resid_norm", prompt_class=np.array(["a", "b"], object)),
    "bands that are not private": lambda result: result["profiles"].update(
        {"resid_norm": xr.DataTree(result["profiles/resid_norm"].to_dataset().isel(depth=[0, 3]))}
    ),
    "no classes": lambda result: result.update(
        {"classes": xr.DataTree(result["classes"].to_dataset().isel(prompt_class=[]))}
    ),
    "some layers": _table("profiles/mlp_write_ratio", layer=np.array([5, 6, 7])),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_publication_is_refused_in_one_line_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    result = published_profiles(3)
    HOSTILE[what](result)
    with pytest.raises(InputError) as refused:
        stratoscope.simulate(tmp_path / "x.trace", like=stored(result, tmp_path / "published"))
    assert "\n" not in str(refused.value)
    assert [one.name for one in tmp_path.iterdir()] == ["published"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "t.trace"
    stratoscope.simulate(trace, prompts=2, tokens=3, layers=1, record="norms")
    published = stored(published_profiles(2), tmp_path / "published")
    document = published / "result.zarr" / "zarr.json"
    document.write_text(document.read_text().replace("profiles", "profile5", 1))
    (tmp_path / "x.json").write_text(json.dumps({}))
    for path in (trace, published, tmp_path / "x.json", tmp_path / "none", tmp_path):
        with pytest.raises(InputError) as refused:
            stratoscope.simulate(tmp_path / "x.trace", like=path)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "x.trace").exists()
