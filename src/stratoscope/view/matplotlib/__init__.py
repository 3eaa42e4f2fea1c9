"""The painters of PNG, SVG and PDF."""
