"""What lies far outside its own distribution: tokens, heads, neurons, layers, experts."""
