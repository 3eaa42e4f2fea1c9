"""The strongest neurons of a prompt, a token or a layer, and where else each of them is strong."""
