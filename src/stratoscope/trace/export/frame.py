"""A quantity of a trace as a tidy table: one row a cell, with everything that tells the cells apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stratoscope import names
from stratoscope.errors import InputError, choices
from stratoscope.names import EDGE, PROMPT, ROW, TOKEN
from stratoscope.trace.arrays import Ints
from stratoscope.trace.format.text import spelled
from stratoscope.trace.format.token_texts import token_texts
from stratoscope.trace.opened import PAIRS_LEFT_OUT, Inputs, opened
from stratoscope.trace.prompts import Prompts
from stratoscope.trace.quantity_names import check_known, quantity_named

if TYPE_CHECKING:
    import pandas as pd

    from stratoscope.trace.csv.columns import Columns

Table: TypeAlias = "dict[str, Any]"  # column -> values of one dimension
_MOST_CELLS = 2**26  # some 5 GB
_TOKENS = {  # quantities that name tokens by their ids → the column of their texts
    "lens_token": "lens_text",
    "write_token": "write_text",
    "target_token": "target_text",
    "against_token": "against_text",
}


def to_frame(trace: Inputs, quantity: str, *, columns: Columns = None) -> pd.DataFrame:
    """Make a tidy table of a quantity: one row for each of its cells.

    Parameters
    ----------
    trace
        A trace, one or several CSV or Parquet files (one prompt each), or a Dataset.
    quantity
        A name of `names.QUANTITIES` that it holds (`info` lists them).
    columns
        Which column of CSV files is which, as in `import_csv`.

    Returns
    -------
    pandas.DataFrame
        The last column is the quantity; those before say of which cell: `prompt` (index), `prompt_id`, `prompt_class`,
        `pair`, `group`; of a token `position`, `token` (its text; bytes that are no character as `<0xE4>`), `token_id`
        (−1 = not known), `span`, `first` (whether it is the first of its prompt) and `answer` (whether the model
        answers from it); and the number of each further dimension, such as `layer`, `depth`, `head` or `neuron`. Of
        `attention` the token is the query, and `key_position` and `key` are what it looks at; of an import each row of
        the file is a cell. Of quantities that name tokens by their ids, such as `lens_token`, their texts stand in a
        column before it (`lens_text`). Texts are categories. NaN, and −1 of an index, stand for what is not defined or
        not recorded.

    Raises
    ------
    InputError
        The trace does not hold the quantity, or its cells are too many for one table.

    Examples
    --------
    >>> import stratoscope
    >>> trace = stratoscope.simulate(prompts=4, tokens=6, layers=2, d_model=8, d_ff=24, heads=2)
    >>> frame = stratoscope.to_frame(trace, "mlp_out_norm")
    >>> len(frame) == trace["mlp_out_norm"].size
    True
    >>> later = frame[~frame["first"]]
    >>> later.groupby(["prompt_class", "layer"])["mlp_out_norm"].median().index.tolist()
    [('critical', 0), ('critical', 1), ('neutral', 0), ('neutral', 1)]
    """
    import pandas as pd

    dataset = opened(trace, columns)
    there = [name for name in names.QUANTITIES if name in dataset]
    check_known(dataset, quantity)
    quantity = quantity_named(quantity, there)
    if quantity not in there:
        if any(note["text"] == PAIRS_LEFT_OUT for note in dataset.attrs.get("notes", [])):
            fix = "Take whole prompts: stratoscope.prompt(trace, 0)."
            raise InputError(f"no quantity {quantity!r} in it. {PAIRS_LEFT_OUT.rstrip('.')}", where="quantity", fix=fix)
        raise InputError(f"no quantity {quantity!r} in it", where="quantity", fix=choices(quantity, there))
    array = dataset[quantity]
    if array.size > _MOST_CELLS:
        fix = "Take one prompt (stratoscope.prompt), or some layers: trace.isel(layer=[3])."
        raise InputError(f"{array.size:,} cells are too many for one table", where=quantity, fix=fix)
    prompts, found = Prompts(dataset), dict[str, Any]()
    for axis, dim in enumerate(map(str, array.dims)):
        after, before = math.prod(array.shape[axis + 1 :]), math.prod(array.shape[:axis])
        for name, values in _of_dimension(prompts, dim).items():
            found[name] = values.repeat(after).take(np.tile(np.arange(len(values) * after), before))
    values = array.values.ravel()
    if quantity in _TOKENS and (texts := token_texts(dataset.attrs)):
        found[_TOKENS[quantity]] = _categories(texts.get(number, "") for number in values.tolist())
    found[quantity] = values
    return pd.DataFrame(found)


def _of_dimension(prompts: Prompts, dim: str) -> Table:
    """The columns that tell the places along a dimension apart."""
    dataset = prompts.dataset
    if dim == PROMPT:
        return _of_prompts(prompts, np.arange(len(prompts)))
    if dim == TOKEN:
        return _of_tokens(prompts, np.arange(dataset.sizes[TOKEN]))
    if dim == EDGE:
        query, key = _pairs(prompts)
        return _of_tokens(prompts, query) | {"key_position": prompts.position[key], "key": _texts(prompts, key)}
    if dim == ROW:
        columns: Table = {"layer": dataset["row_layer"].values, "neuron": dataset["row_neuron"].values}
        while (name := f"column_{len(columns) - 2}") in dataset.variables:
            columns[str(dataset[name].attrs["column"])] = _categories(dataset[name].values)
        return _of_tokens(prompts, dataset["row_token"].values) | columns
    numbers = dataset[dim].values if dim in dataset.variables else np.arange(dataset.sizes[dim])
    return {dim: _categories(numbers) if numbers.dtype == object else numbers}


def _of_prompts(prompts: Prompts, which: NDArray[np.integer]) -> Table:
    texts = zip(names.PROMPT_TEXTS, (prompts.ids, prompts.classes, prompts.pairs, prompts.groups), strict=True)
    return {"prompt": which} | {name: _categories(of).take(which) for name, of in texts}


def _of_tokens(prompts: Prompts, which: NDArray[np.integer]) -> Table:
    spans = _categories([*names.SPANS, ""])
    return _of_prompts(prompts, prompts.of_token[which]) | {
        "position": prompts.position[which],
        "token": _texts(prompts, which),
        "token_id": prompts.dataset["token_id"].values[which],
        "span": spans.take(prompts.spans[which] % len(spans)),
        "first": prompts.first[which],
        "answer": prompts.answer[prompts.of_token[which]] == which,
    }


def _texts(prompts: Prompts, which: NDArray[np.integer]) -> pd.Categorical[Any]:
    return _categories(prompts.words(slice(None))).take(which)


def _categories(texts: Any) -> pd.Categorical[Any]:
    import pandas as pd

    return pd.Categorical([spelled(str(text)) for text in texts])


def _pairs(prompts: Prompts) -> tuple[Ints, Ints]:
    """The tokens of each pair: query, and key."""
    starts, lengths = prompts.starts.tolist(), prompts.lengths.tolist()
    pairs = [np.add(np.tril_indices(length), start) for start, length in zip(starts, lengths, strict=True)]
    query, key = np.concatenate(pairs, axis=1)
    return query, key
