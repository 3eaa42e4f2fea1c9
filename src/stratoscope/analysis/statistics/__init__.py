"""Kernels on plain arrays: ranks, moments, permutations, effect sizes, many tests at once."""
