"""Total effects on a chosen output token: first order, and measured by setting values in memory for one forward."""
