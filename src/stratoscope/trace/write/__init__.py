"""Writing a trace: block by block, resumed, from a Dataset, or from its parts."""
