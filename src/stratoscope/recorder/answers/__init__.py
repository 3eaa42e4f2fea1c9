"""Answers that the model writes, and what it was likely to answer."""
