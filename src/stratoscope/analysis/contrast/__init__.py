"""Two classes of prompts compared: neuron by neuron, layer by layer, and token by aligned token."""
