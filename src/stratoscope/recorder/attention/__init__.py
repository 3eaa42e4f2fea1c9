"""Attention: seen where it is computed, summed chunk by chunk."""
