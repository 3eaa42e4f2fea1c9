"""A recording of a pretended model: the same trace as a real one gives, with structure planted at stated places."""
