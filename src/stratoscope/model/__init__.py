"""A model and its named, proved sites. Needs torch."""
