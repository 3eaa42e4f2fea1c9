"""A trace or a Result as the files of other tools can hold it."""

from __future__ import annotations

import json
from typing import Any, overload

import numpy as np
import xarray as xr

from stratoscope.errors import InputError
from stratoscope.trace.format.text import spelled
from stratoscope.trace.labels import object_array
from stratoscope.trace.opened import Inputs, dataset_of

_PLAIN = (str, int, float)


@overload
def portable(dataset: xr.DataTree) -> xr.DataTree: ...
@overload
def portable(dataset: Inputs) -> xr.Dataset: ...
def portable(dataset: Inputs | xr.DataTree) -> xr.Dataset | xr.DataTree:
    """Make a Dataset that `to_netcdf`, `to_zarr` and `to_dataframe` of xarray can write.

    What a trace says about itself is nested, and a token may be a piece of a character: neither has a place in a netCDF
    file or a pandas table, and netCDF has no float16, which becomes float32. Values are not changed, and stay lazy.

    Parameters
    ----------
    dataset
        A trace, CSV files, their Dataset, or a Result.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        The same (of a Result its tree), with every nested attribute as JSON text (`json.loads` reads it), and with
        bytes of a token that are no UTF-8 spelled `<0xE4>`, as `export_csv` does.

    Raises
    ------
    InputError
        It is none of these, or a dimension is left as one number.
    TraceError
        It cannot be opened.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=2, layers=3)
    >>> _ = stratoscope.portable(trace).to_netcdf("small.nc")
    >>> import xarray
    >>> dict(xarray.open_dataset("small.nc").sizes)
    {'token': 52, 'depth': 4, 'layer': 3, 'peak': 10, 'head': 8, 'prompt': 2, 'neuron': 1024}
    """
    if isinstance(dataset, xr.DataTree):
        return xr.DataTree.from_dict({path: _portable(table) for path, table in dataset.to_dict().items()})
    return _portable(dataset_of(dataset))


def _portable(dataset: xr.Dataset) -> xr.Dataset:
    scalars = [str(dim) for dim in dataset.dims if dim in dataset.variables and not dataset.variables[dim].dims]
    if scalars:
        fix = "Choose with a list, which keeps the dimension: dataset.isel(token=[5])."
        raise InputError(f"'{scalars[0]}' is one number and a dimension too", fix=fix)
    result = dataset.assign_attrs(_as_text(dataset.attrs))
    for name, variable in dataset.variables.items():
        if variable.dtype == object:
            texts = object_array([spelled(str(text)) for text in variable.values.ravel()]).reshape(variable.shape)
            fixed = xr.Variable(variable.dims, texts, variable.attrs)
        elif variable.dtype == np.float16:
            fixed = dataset[name].astype(np.float32).variable
        else:
            continue
        result = result.assign_coords({name: fixed}) if name in dataset.coords else result.assign({name: fixed})
    for name in result.variables:
        result[name].attrs = _as_text(result[name].attrs)
    return result


def _as_text(attrs: dict[Any, Any]) -> dict[str, Any]:
    """Attributes of which every file can hold each: numbers and texts, everything else as JSON."""
    plain = {str(key): value.tolist() if hasattr(value, "tolist") else value for key, value in attrs.items()}
    return {
        key: value if isinstance(value, _PLAIN) and not isinstance(value, bool) else json.dumps(value)
        for key, value in plain.items()
    }
