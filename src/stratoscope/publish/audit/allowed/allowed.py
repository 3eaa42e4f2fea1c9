"""Whether a written file holds what its level lists and nothing else: each kind by its own list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from stratoscope import names
from stratoscope.errors import StratoscopeError
from stratoscope.names import Level
from stratoscope.publish import inputs
from stratoscope.publish.audit.allowed.result import unlisted_in_result
from stratoscope.publish.audit.allowed.trace import unlisted_in_trace
from stratoscope.publish.audit.outcome import Finding
from stratoscope.publish.audit.search.files import kind_of
from stratoscope.publish.levels import WITH_TOKENS

UNLISTED = "what its level does not list"
_AGAIN = "Publish the original again, and share what that writes."


def unlisted(root: Path, kind: str, level: Level) -> Iterator[Finding]:
    """What a file or folder holds that a level does not list."""
    for what, where in _unlisted(root, kind, level):
        yield Finding(UNLISTED, what, str(where), _AGAIN)


def _unlisted(root: Path, kind: str, level: Level) -> Iterator[tuple[str, Path]]:
    try:
        if kind == inputs.TRACE:
            yield from unlisted_in_trace(root, level)
        elif kind == inputs.RESULT:
            yield from _in_result_folder(root, level)
        elif kind == inputs.CSV:
            yield from _in_table(root, level) if level in WITH_TOKENS else [("it has a row for every token", root)]
        elif kind in (inputs.PICTURE, inputs.PAGE):
            yield from _in_picture(root, level)
        elif kind == inputs.FOLDER:
            for path in sorted(root.iterdir()):
                if not path.is_symlink():
                    yield from _unlisted(path, kind_of(path), level)
        else:
            yield "it is nothing that Stratoscope writes", root
    except StratoscopeError as error:
        yield f"it is not as it was written: {error.what}", root
    except OSError as error:
        yield f"it cannot be read: {error.strerror or error}", root


def _in_result_folder(root: Path, level: Level) -> Iterator[tuple[str, Path]]:
    store = root if root.name == names.RESULT_STORE else root / names.RESULT_STORE
    yield from unlisted_in_result(store, level)
    if store != root:
        yield from _beside(root)


def _beside(root: Path) -> Iterator[tuple[str, Path]]:
    """Whether the page, the table and the figures beside a Result are those that are made of it: it is made again."""
    from stratoscope.analysis.results.result import open_result
    from stratoscope.view.report.save import save_result

    with TemporaryDirectory() as folder:
        again = save_result(open_result(root), Path(folder, "again"))
        for path in sorted(root.rglob("*")):
            made = again / path.relative_to(root)
            if names.RESULT_STORE in path.relative_to(root).parts or path.is_symlink():
                continue  # told elsewhere
            if not made.exists() or made.is_dir() != path.is_dir():
                yield "it is no part of a result", path
            elif path.is_file() and path.read_bytes() != made.read_bytes():
                yield "it is not what is made of the result beside it, with this version of Stratoscope", path


def _in_table(path: Path, level: Level) -> Iterator[tuple[str, Path]]:
    """Whether publishing it again gives the same bytes."""
    from stratoscope.publish.tokens.csv_files import published_csv, write_csv
    from stratoscope.trace.csv.read import read_csv

    with TemporaryDirectory() as folder:
        again = Path(folder, f"again{'.parquet' if path.suffix == '.parquet' else '.csv'}")
        write_csv(published_csv(read_csv([path]), level), again)
        if again.read_bytes() != path.read_bytes():
            yield "it holds more, or other, than a table that is published", path


def _in_picture(path: Path, level: Level) -> Iterator[tuple[str, Path]]:
    """Whether building it again of what is known of it gives the same bytes."""
    from stratoscope.publish.pictures.files import rebuilt

    if rebuilt(path, level) != path.read_bytes():
        yield "it holds more, or other, than a picture that is published", path
