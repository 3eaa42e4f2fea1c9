"""Run the lessons with the demo's model and put what their cells gave into their pages: `make gallery`."""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from notebooks import LESSONS, as_markdown, notebook, with_outputs  # noqa: E402

SECONDS = 900  # the most that a cell may take
SIZE = (1500, 1500)  # pixels of a picture, at most


def main() -> None:
    """All of them, or those whose numbers are given: make.py 3 4."""
    chosen = [path for path in LESSONS if len(sys.argv) == 1 or path.name[0] in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        for path in chosen:
            page = path.read_text("utf-8")
            outputs = list(_run(page, path, Path(folder)))
            path.write_text(with_outputs(page, outputs), "utf-8")
            print(path)


def _run(page: str, path: Path, folder: Path) -> Iterator[str]:
    """What each code cell gave, as Markdown; pictures are written beside the page."""
    for picture in path.parent.glob(f"{path.stem}-*.webp"):
        picture.unlink()
    ran = nbformat.reads(notebook(page), as_version=4)
    NotebookClient(ran, timeout=SECONDS, resources={"metadata": {"path": str(folder)}}).execute()
    number = 0

    def keep(encoded: str) -> str:
        nonlocal number
        number += 1
        name = f"{path.stem}-{number}.webp"
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            picture.thumbnail(SIZE)
            picture.convert("RGB").save(HERE / name, quality=88, method=6)
        return name

    for cell in ran.cells:
        if cell.cell_type == "code":
            sys.stderr.writelines(output.text for output in cell.outputs if output.get("name") == "stderr")
            yield as_markdown(cell.outputs, cell.source.splitlines()[0].lstrip("# "), keep)


if __name__ == "__main__":
    main()
