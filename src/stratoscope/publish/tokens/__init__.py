"""The levels that keep tokens: what a trace, a table and a Result may hold, and these rebuilt of that alone."""
