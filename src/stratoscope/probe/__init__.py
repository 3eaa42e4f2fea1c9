"""Causal measurements: a model rerun in memory with something changed for one forward. Nothing is ever written."""
