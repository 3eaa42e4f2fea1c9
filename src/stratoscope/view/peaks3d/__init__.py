"""Peaks of tokens × layers in three dimensions: which are drawn, how high they stand, a Plotly figure and a page."""
