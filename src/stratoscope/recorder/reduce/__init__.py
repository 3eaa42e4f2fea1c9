"""What a forward's tensors are reduced to, layer by layer, while it runs."""
