"""A trace, or some of it, as other tools hold it: CSV, tidy tables, matrices, netCDF."""
