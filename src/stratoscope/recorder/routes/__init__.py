"""Routes: along which edges of attention the residual stream in front of each MLP is made, and what brings a target."""
