"""A Dataset becomes a ViewSpec, a ViewSpec becomes a picture. Renderers compute no statistic."""
