"""Targets: the tokens whose logits are explained, and along which directions of the residual stream they are read."""
