"""Results as folders that people can read and pass on: a page, its figures, a table, and all the numbers."""

from stratoscope.view.report.save import save_result

__all__ = ["save_result"]
