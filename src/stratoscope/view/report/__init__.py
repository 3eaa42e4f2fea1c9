"""Results as folders that people can read and pass on: a page, its figures, a table, and all the numbers."""

from stratoscope.view.report.save import PAGE, check_folder, contents_of, default_folder, save_result

__all__ = ["PAGE", "check_folder", "contents_of", "default_folder", "save_result"]
