"""A model rerun in memory with something changed, for one measured forward pass; nothing changed is ever written."""
