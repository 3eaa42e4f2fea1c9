"""`fit_lens`: how the residual stream at each depth moves the one behind the last block, averaged over texts."""
