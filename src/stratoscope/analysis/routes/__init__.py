"""Along which edges a token's stream came about: which head brought what from which token, a few of them and the rest."""  # noqa: E501
