"""Markers that are put into a copy of the original before it is published, and looked for in what comes out."""
