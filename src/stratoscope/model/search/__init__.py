"""The sites of a model, found by what its modules compute on a probe prompt; no architecture is named."""
