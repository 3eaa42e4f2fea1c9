"""The picture of routes: which edges a token's stream came about by, on the grid of tokens and depths."""
