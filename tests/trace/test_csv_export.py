"""Exporting: peaks of a trace as rows, one file per prompt, nothing overwritten or left half-written."""

import csv
import subprocess
import sys

import numpy as np
import pandas
import pytest

from stratoscope.errors import InputError
from stratoscope.names import CSV_COLUMNS
from stratoscope.trace.csv.read import read_csv
from stratoscope.trace.export.csv import export_csv
from stratoscope.trace.labels import labelled, root_attributes

PEAK_COLUMNS = [*CSV_COLUMNS, "Peak_Value", "Write_Norm"]


def trace(lengths=(3, 2), layers=(4, 7), k=2, ids=("one", "two"), texts=None, **more):
    rng = np.random.default_rng(0)
    tokens = sum(lengths)
    value = rng.standard_t(3, (tokens, len(layers), k)).astype("float32")
    arrays = {
        "prompt": np.repeat(np.arange(len(lengths)), lengths),
        "position": np.concatenate([np.arange(length) for length in lengths]),
        "token_id": np.full(tokens, -1),
        "span": np.full(tokens, -1),
        "layer": np.array(layers),
        "peak_neuron": rng.permuted(np.tile(np.arange(k * 9), (tokens, len(layers), 1)), axis=-1)[..., :k],
        "peak_value": value,
        "peak_write": np.abs(value) * np.float32(1.7),
    }
    return labelled(
        arrays,
        {"text": texts or [f"t{n}" for n in range(tokens)], "prompt_id": ids[: len(lengths)]},
        root_attributes("real", **more),
    )


def rows(file):
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_every_peak_of_a_trace_becomes_one_row_with_its_sign_and_write_norm(tmp_path):
    dataset = trace(lengths=(3,))
    (file,) = export_csv(dataset, tmp_path / "out.csv")
    header, *found = rows(file)
    assert header == PEAK_COLUMNS
    cells = iter(found)
    for token in range(3):
        for place, layer in enumerate((4, 7)):
            for k in range(2):
                at = {"token": token, "layer": place, "peak": k}
                row = next(cells)
                assert row[:4] == [str(token), f"t{token}", str(layer), str(int(dataset["peak_neuron"].isel(at)))]
                value, write = dataset["peak_value"].isel(at).values, dataset["peak_write"].isel(at).values
                assert np.array(row[4:], "float32").tolist() == [abs(value), value, write]
    assert next(cells, None) is None


def test_peaks_that_were_not_recorded_have_no_row(tmp_path):
    dataset = trace(lengths=(3,))
    dataset["peak_neuron"][0, 1, 1] = -1
    dataset["peak_value"][2, 0, :] = np.nan
    (file,) = export_csv(dataset, tmp_path / "out.csv")
    found = [(row[0], row[2]) for row in rows(file)[1:]]
    assert found.count(("0", "7")) == 1
    assert found.count(("2", "4")) == 0
    assert len(found) == 12 - 3


def test_an_export_of_peaks_can_be_imported(tmp_path):
    dataset = trace(lengths=(3,))
    (file,) = export_csv(dataset, tmp_path / "out.csv")
    back = read_csv(file)
    assert (
        back["imported_norm"].values.astype("float32").tolist() == np.abs(dataset["peak_value"].values).ravel().tolist()
    )
    assert back["column_0"].attrs["column"] == "Peak_Value"


def test_stray_bytes_of_tokens_are_spelled_out(tmp_path):
    texts = [b"\xe4\xb8".decode("utf-8", "surrogateescape"), "ä", "\n"]
    (file,) = export_csv(trace(lengths=(3,), texts=texts), tmp_path / "out.csv")
    assert list(dict.fromkeys(row[1] for row in rows(file)[1:])) == ["<0xE4><0xB8>", "ä", "\n"]


def test_each_of_several_prompts_gets_its_own_file(tmp_path):
    files = export_csv(trace(), tmp_path / "out.csv")
    assert [file.name for file in files] == ["out-one.csv", "out-two.csv"]
    assert [[row[1] for row in rows(file)[1::4]] for file in files] == [["t0", "t1", "t2"], ["t3", "t4"]]


@pytest.mark.parametrize("parquet", [False, True])
def test_several_prompts_in_one_file_are_told_apart_by_a_last_column(tmp_path, parquet):
    ids = ("a,b", "=two")
    (file,) = export_csv(
        trace(ids=ids), tmp_path / ("all.parquet" if parquet else "all.csv"), one_file=True, parquet=parquet
    )
    table = pandas.read_parquet(file) if parquet else pandas.read_csv(file, keep_default_na=False)
    assert list(table) == [*PEAK_COLUMNS, "Prompt"]
    assert table["Prompt"].tolist() == ["a,b"] * 12 + ["=two"] * 8
    (alone,) = export_csv(trace(ids=ids), tmp_path / "alone.csv", prompt="=two")
    own = table[table["Prompt"] == "=two"].drop(columns="Prompt").reset_index(drop=True)
    assert own["Token"].tolist() == [row[1] for row in rows(alone)[1:]]
    assert own["Peak_Value"].astype("float32").tolist() == [np.float32(row[5]) for row in rows(alone)[1:]]


def test_further_columns_of_some_files_are_empty_for_the_other_prompts(tmp_path):
    for name, more in (("one", ("Note", "x")), ("two", ("Prompt", "y"))):
        (tmp_path / f"{name}.csv").write_text(f"{','.join(CSV_COLUMNS)},{more[0]}\n0,a,0,0,1,{more[1]}\n")
    imported = read_csv(tmp_path / "one.csv")
    (file,) = export_csv(imported, tmp_path / "all.csv", one_file=True)
    assert rows(file)[1][-2:] == ["x", "one"]
    with pytest.raises(InputError, match="a column Prompt of its own"):
        export_csv(read_csv([tmp_path / "one.csv", tmp_path / "two.csv"]), tmp_path / "both.csv", one_file=True)
    assert not (tmp_path / "both.csv").exists()


def test_prompt_ids_become_file_names_that_are_safe_and_different(tmp_path):
    ids = ("../../etc/x", "a/b", "a b", "A_B", "é" * 300)
    files = export_csv(trace(lengths=(1,) * 5, ids=ids), tmp_path / "out.csv")
    assert {file.parent for file in files} == {tmp_path}
    assert len({file.name.casefold() for file in files}) == 5
    assert sorted(tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("prompt", ["two", 1, "1"])
def test_one_prompt_is_chosen_by_id_or_index(tmp_path, prompt):
    (file,) = export_csv(trace(), tmp_path / "out.csv", prompt=prompt)
    assert file == tmp_path / "out.csv"
    assert {row[1] for row in rows(file)[1:]} == {"t3", "t4"}


def test_an_id_wins_over_an_index(tmp_path):
    (file,) = export_csv(trace(ids=("1", "0")), tmp_path / "out.csv", prompt="1")
    assert {row[1] for row in rows(file)[1:]} == {"t0", "t1", "t2"}


@pytest.mark.parametrize("prompt", ["three", 2, "-1", "²"])
def test_a_prompt_that_does_not_exist_is_refused(tmp_path, prompt):
    with pytest.raises(InputError, match="no prompt"):
        export_csv(trace(), tmp_path / "out.csv", prompt=prompt)


def test_a_trace_without_peaks_says_how_to_record_them(tmp_path):
    with pytest.raises(InputError, match="--record peaks"):
        export_csv(trace().drop_vars(["peak_neuron", "peak_value", "peak_write"]), tmp_path / "out.csv")


def test_existing_files_are_kept_unless_overwriting_is_asked_for(tmp_path):
    (tmp_path / "out-two.csv").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        export_csv(trace(), tmp_path / "out.csv")
    assert [file.name for file in tmp_path.iterdir()] == ["out-two.csv"]
    export_csv(trace(), tmp_path / "out.csv", overwrite=True)
    assert (tmp_path / "out-two.csv").read_text().startswith("Token_Pos")


@pytest.mark.parametrize(
    "files", [None, 3, "x", [None], [{}], [{"prompt_id": "in"}], [{"prompt_id": "in", "extra_columns": [["x"], "y"]}]]
)
def test_a_plan_that_is_not_what_it_must_be_does_not_stop_an_export(tmp_path, files):
    (tmp_path / "in.csv").write_text("Token_Pos,Token,Layer,Neuron_ID,Activation_Norm,Note\n0,a,1,2,3.0,x\n")
    dataset = read_csv(tmp_path / "in.csv")
    export_csv(dataset.assign_attrs(plan={"files": files}), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("Token_Pos,Token,Layer")


def test_a_failure_half_way_leaves_no_file_at_all(tmp_path, monkeypatch):
    from stratoscope.trace.export import csv as csv_write

    cells = csv_write._cells
    calls = iter(range(100))

    def full(*given):
        if next(calls) == 9:
            raise OSError(28, "No space left on device")
        return cells(*given)

    monkeypatch.setattr(csv_write, "_cells", full)
    with pytest.raises(InputError, match="No space left on device"):
        export_csv(trace(), tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_and_a_folder_in_the_way_are_refused(tmp_path):
    with pytest.raises(InputError, match="folder does not exist"):
        export_csv(trace(), tmp_path / "none" / "out.csv")
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        export_csv(trace(), tmp_path / "out.csv", prompt=0)


def test_rows_whose_prompts_are_mixed_are_refused_rather_than_misfiled(tmp_path):
    for stem in ("a", "b"):
        (tmp_path / f"{stem}.csv").write_text(f"{','.join(CSV_COLUMNS)}\n0,{stem},0,0,1\n")
    dataset = read_csv([tmp_path / "a.csv", tmp_path / "b.csv"]).isel(row=[1, 0])
    with pytest.raises(InputError, match="mixed"):
        export_csv(dataset, tmp_path / "out.csv")


def test_parquet_holds_the_same_values(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    dataset = trace(lengths=(3,))
    (file,) = export_csv(dataset, tmp_path / "out.parquet", parquet=True)
    table = parquet.read_table(file)
    assert table.column_names == PEAK_COLUMNS
    assert table["Token"].to_pylist()[::4] == ["t0", "t1", "t2"]
    assert table["Neuron_ID"].to_pylist() == dataset["peak_neuron"].values.ravel().tolist()
    assert table["Peak_Value"].to_pylist() == dataset["peak_value"].values.ravel().tolist()


def test_parquet_without_pyarrow_names_the_extra_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'stratoscope\[parquet\]'"):
        export_csv(trace(), tmp_path / "out.parquet", parquet=True)
    assert list(tmp_path.iterdir()) == []


def test_csv_needs_neither_pyarrow_nor_polars_nor_torch():
    code = "import sys\nfor name in ('pyarrow', 'polars', 'torch'): sys.modules[name] = None\n"
    code += "import stratoscope.trace.csv.read"
    subprocess.run([sys.executable, "-c", code], check=True)
