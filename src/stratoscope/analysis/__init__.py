"""Statistics: kernels on plain arrays, and the verbs that put their answers into labelled Results. No torch."""
