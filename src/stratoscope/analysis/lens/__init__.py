"""What a lens reads at the tokens of a prompt: where the model's answer first leads, from where it stays, how stable that is."""  # noqa: E501
