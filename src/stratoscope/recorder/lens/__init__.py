"""Lenses: the residual stream of a token read as if the model ended there; and what a file of a fitted lens gives."""
