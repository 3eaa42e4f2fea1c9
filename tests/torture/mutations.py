"""Damages files that people give in thousands of ways: each reader answers, or refuses in the project's own words.

`python tests/torture/mutations.py 20000` is part of `make torture`; `make test` runs some hundreds. A failure is
printed with the reader and the number that make the same file again.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import json
import random
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from verbs import silence, where

import stratoscope
from stratoscope import names
from stratoscope.errors import StratoscopeError

SECONDS = 10  # of CPU, for one input
HEAD = "Token_Pos,Token,Layer,Neuron_ID,Activation_Norm\n"
ROWS = [(0, "<s>", 22, 7, 91.5), (0, "<s>", 23, 9, 12.25), (1, "▁Hi", 22, 3, 0.5), (2, "a,b", 31, 14335, 1e-3)]
NUMBERS = ["0", "-1", "2147483648", "9223372036854775807", "1e308", "-1e309", "nan", "inf", "1e-320", "", "0x10", "1_0",
           "٣", "1,5", "99999999999999999999999999", "true"]  # fmt: skip
VALUES: list[Any] = [None, True, -1, 0, 1.5, 2**31, 2**63, 10**30, 1e308, "", "x", "x" * 5000, "\x00", "\u202e", [], {},
                     [[]], [None], {"": {}}, [0] * 300, ["a"], "3", "NaN"]  # fmt: skip


OF_EACH_KIND = frozenset((
    "mlp_out_norm", "resid_norm", "attn_first", "neurons", "attention", "opener_log_odds", "refusal_pattern",
    "floor_batch_mlp_out_norm",
))  # fmt: skip


class TooSlow(BaseException):
    """An input that took longer than it may; not an Exception, so that no reader takes it for one of its own."""


@dataclass(frozen=True)
class Reader:
    """Who reads, what sound files it is given, and how large a share of all inputs."""

    name: str
    make: Callable[[Path], list[Path]]  # sound files or folders in a folder
    read: Callable[[Path], object]
    share: float


# --- sound files ----------------------------------------------------------------------------------------------------


def csv_files(folder: Path) -> list[Path]:
    def text(separator: str, head: str = HEAD, mark: str = ".", quote: str = '"') -> str:
        lines = [
            separator.join([str(a), f"{quote}{b}{quote}", str(c), str(d), str(e).replace(".", mark)])
            for a, b, c, d, e in ROWS
        ]
        return head.replace(",", separator) + "\n".join(lines) + "\n"

    made = {
        "plain.csv": text(",").encode(),
        "semicolon.csv": text(";", mark=",").encode("utf-8-sig"),
        "tab.csv": text("\t").replace("\n", "\r\n").encode("utf-16"),
        "packed.csv.gz": gzip.compress(text(",").encode(), mtime=0),
        "further.csv": (HEAD.strip() + ",Note\n0,a,1,2,3.5,x\n1,b,1,2,4.5,\"y\nz\"\n").encode(),
        "other.csv": text(",", "pos,tok,block,unit,norm\n").encode(),
    }  # fmt: skip
    return [
        *_written(folder, made),
        _parquet(folder / "rows.parquet", dict(zip(HEAD.strip().split(","), zip(*ROWS, strict=True), strict=True))),
    ]


def prompt_files(folder: Path) -> list[Path]:
    rows = [
        {"id": "a", "text": "How do I stop a process?", "class": "critical", "pair": "p1"},
        {"id": "b", "text": "How do I stop\na bicycle? é", "class": "neutral", "pair": "p1"},
        {"id": "c", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]},
    ]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    made = {
        "a.jsonl": lines.encode(),
        "a.json": json.dumps(rows, indent=1).encode(),
        "a.csv": b'id,text,class\na,"How, do",critical\nb,"I ""stop""\nit",neutral\n',
        "a.tsv": b"id\ttext\tgroup\na\tHow do\tg\nb\tI stop\tg\n",
        "a.txt": "How do I stop?\n\nWhat is this? é\n".encode(),
        "b.jsonl.bz2": bz2.compress(lines.encode()),
        "c.jsonl": b'{"instruction": "Write", "input": "", "output": "x"}\n{"instruction": "Add", "input": "1, 2"}\n',
    }
    return [*_written(folder, made), _parquet(folder / "a.parquet", {"text": ["one", "two"], "id": ["a", "b"]})]


def traces(folder: Path) -> list[Path]:
    from odd_traces import Odd

    from stratoscope.trace.write.from_dataset import write_dataset

    small: dict[str, Any] = {
        "prompts": 4,
        "tokens": (3, 5),
        "layers": 2,
        "d_model": 8,
        "d_ff": 12,
        "heads": 2,
        "top_k": 2,
    }
    stratoscope.simulate(folder / "simulated", **small, record="peaks,prompts")
    stratoscope.import_csv(csv_files(_new(folder / "csv"))[0], folder / "imported")
    odd = Odd((2, 3), (0, 1), OF_EACH_KIND, ("usual",), 1, 4, 2, names.REAL, 0, 0)
    write_dataset(odd.dataset(), folder / "of each kind")
    return [folder / "simulated", folder / "imported", folder / "of each kind"]


def results(folder: Path) -> list[Path]:
    from stratoscope.analysis.results.result import store_result

    shape: dict[str, Any] = {"prompts": 12, "tokens": 4, "layers": 2, "d_model": 8, "d_ff": 12, "heads": 2, "top_k": 2}
    trace = stratoscope.simulate(**shape)
    made = {"lint": stratoscope.lint(trace), "contrast": stratoscope.contrast(trace, permutations=99, groups=False)}
    for name, result in made.items():
        store_result(result, _new(folder / name))
    return [folder / name for name in made]


def gguf_files(folder: Path) -> list[Path]:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    settings = {
        "general.architecture": struct.pack("<I", 8) + text("llama"),
        "general.name": struct.pack("<I", 8) + text("small"),
        "general.alignment": struct.pack("<II", 4, 32),
        "llama.block_count": struct.pack("<II", 4, 1),
        "llama.embedding_length": struct.pack("<II", 4, 8),
        "llama.attention.head_count": struct.pack("<II", 4, 2),
        "llama.rope.freq_base": struct.pack("<If", 6, 10000.0),
        "tokenizer.ggml.model": struct.pack("<I", 8) + text("gpt2"),
        "tokenizer.ggml.tokens": struct.pack("<IIQ", 9, 8, 3) + text("a") + text("b") + text("é"),
        "tokenizer.ggml.token_type": struct.pack("<IIQ3i", 9, 5, 3, 1, 1, 3),
    }
    tensors = {"token_embd.weight": (8, 3), "blk.0.ffn_down.weight": (8, 8)}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(settings))
    head += b"".join(text(key) + value for key, value in settings.items())
    offset = 0
    for name, shape in tensors.items():
        head += text(name) + struct.pack("<IQQIQ", 2, *shape, 0, offset)
        offset += -(-shape[0] * shape[1] * 4 // 32) * 32
    return _written(folder, {"small.gguf": head + bytes(-len(head) % 32) + bytes(offset)})


def models(folder: Path) -> list[Path]:
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "vocab_size": 3,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    }
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **sizes}
    entries = {
        "model.embed_tokens.weight": {"dtype": "F32", "shape": [3, 8], "data_offsets": [0, 96]},
        "__metadata__": {"format": "pt"},
    }
    head = json.dumps(entries).encode()
    model = _new(folder / "model")
    made = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": struct.pack("<Q", len(head)) + head + bytes(96),
        "tokenizer.json": json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}).encode(),
        "generation_config.json": b"{}",
    }
    _written(model, made)
    return [model]


def _written(folder: Path, made: dict[str, bytes]) -> list[Path]:
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in made]


def _parquet(path: Path, columns: dict[str, Any]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)
    return path


def _new(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# --- who reads ------------------------------------------------------------------------------------------------------


def read_trace(path: Path) -> object:
    from stratoscope.trace.opened import opened

    dataset = opened(path)
    stratoscope.info(dataset)
    return dataset.load()


def read_result(path: Path) -> object:
    return stratoscope.open_result(path).load()


def read_csv(path: Path) -> object:
    from stratoscope.trace.csv.read import read_csv

    return read_csv(path)


def read_prompts(path: Path) -> object:
    from stratoscope.recorder.prompts.prompt import read_prompts

    return read_prompts(path)


def read_model(path: Path) -> object:
    from stratoscope.model.files.model_files import find_files

    return find_files(str(path)).gguf_file


READERS = (
    Reader("CSV", csv_files, read_csv, 0.3),
    Reader("prompts", prompt_files, read_prompts, 0.3),
    Reader("trace", traces, read_trace, 0.2),
    Reader("result", results, read_result, 0.05),
    Reader("GGUF", gguf_files, read_model, 0.1),
    Reader("model folder", models, read_model, 0.05),
)


# --- damage ---------------------------------------------------------------------------------------------------------


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The bytes of a file, changed in one to three ways."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        change = chance.choice(_CHANGES)
        content = change(content, chance)
    return content


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 20))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _slice(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice((1, 2, 8, 64, 1000)))


def _drop(content: bytes, chance: random.Random) -> bytes:
    start, end = _slice(content, chance)
    return content[:start] + content[end:]


def _double(content: bytes, chance: random.Random) -> bytes:
    start, end = _slice(content, chance)
    return content[:end] + content[start:end] * chance.choice((1, 2, 50)) + content[end:]


def _insert(content: bytes, chance: random.Random) -> bytes:
    start, _ = _slice(content, chance)
    some = (b"\x00", b"\xff\xfe", b"\r", b'"', b",", b"\n\n", b"\x1b[2J", "\u202e".encode(), b"\xed\xa0\x80", b"PAR1",
            b"[[[[", bytes(chance.randrange(256) for _ in range(8)))  # fmt: skip
    return content[:start] + chance.choice(some) + content[start:]


def _number(content: bytes, chance: random.Random) -> bytes:
    """One number in a text becomes another; of bytes, one integer of two, four or eight of them."""
    import re

    found = list(re.finditer(rb"\d+(\.\d+)?", content))
    if found and chance.random() < 0.7:
        one = chance.choice(found)
        return content[: one.start()] + chance.choice(NUMBERS).encode() + content[one.end() :]
    size = chance.choice((2, 4, 8))
    start = chance.randrange(max(1, len(content) - size))
    value = chance.choice((0, 1, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1)) % 2 ** (8 * size)
    return content[:start] + value.to_bytes(size, chance.choice(("little", "big"))) + content[start + size :]


def _encode(content: bytes, chance: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(chance.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32", "cp1252")), "replace")


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    chance.shuffle(lines)
    return b"".join(lines[: chance.randrange(1, len(lines) + 1)]) if lines else content


def _json(content: bytes, chance: random.Random) -> bytes:
    """One value of a JSON document, or of a line of it, becomes another, goes, or comes twice."""
    lines = content.split(b"\n")
    place = chance.randrange(len(lines))
    for whole, text in ((True, content), (False, lines[place])):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            continue
        changed = _changed_json(document, chance)
        return changed if whole else b"\n".join([*lines[:place], changed, *lines[place + 1 :]])
    return content


def _changed_json(document: Any, chance: random.Random) -> bytes:
    places = list(_places(document))
    if not places:
        return json.dumps(chance.choice(VALUES)).encode()
    holder, key = chance.choice(places)
    how = chance.randrange(6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[chance.choice(("x", "", "zarr_format", "__proto__", str(key).upper()))] = holder.pop(key)
    elif how == 2:
        other, there = chance.choice(places)
        with contextlib.suppress(KeyError, IndexError):
            holder[key] = other[there]
    elif how == 3:
        value: Any = chance.choice(VALUES)
        for _ in range(chance.choice((1, 70, 3000))):
            value = [value]
        holder[key] = value
    else:
        holder[key] = chance.choice(VALUES)
    try:
        text = json.dumps(document)
    except (ValueError, RecursionError):  # it holds itself now, or lies too deep for the writer
        return b"[" * 5000 + b"]" * 5000
    if how == 5 and isinstance(key, str):
        text = text.replace(f'"{key}":', f'"{key}": 3, "{key}":', 1)
    return text.replace('"NaN"', "NaN").encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    level = [document]
    while level:
        one = level.pop()
        keys = one.keys() if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in list(keys):
            yield one, key
            level.append(one[key])


_CHANGES = (_flip, _cut, _drop, _double, _insert, _number, _number, _encode, _lines, _json, _json, _json)


# --- the run --------------------------------------------------------------------------------------------------------


class Inputs:
    """The sound files of one reader, of which one is damaged at a time and then restored."""

    def __init__(self, reader: Reader, folder: Path) -> None:
        self.reader, self._sound = reader, reader.make(_new(folder / reader.name.replace(" ", "-")))

    def ask(self, number: int) -> str:
        """What the reader says of the input of that number: "answered" or "refused"; anything else is raised."""
        chance = random.Random(f"{self.reader.name} {number}")
        given = chance.choice(self._sound)
        files = sorted(path for path in given.rglob("*") if path.is_file()) if given.is_dir() else [given]
        roots = [path for path in files if path.name == "zarr.json" and path.parent in (given, given / "result.zarr")]
        target = chance.choice(roots) if roots and chance.random() < 0.6 else chance.choice(files)
        before = target.read_bytes()
        if given.is_dir() and chance.random() < 0.15:
            content = chance.choice(files).read_bytes()  # another file of the same folder
        else:
            content = damaged(before, chance)
        try:
            target.unlink() if given.is_dir() and chance.random() < 0.03 else target.write_bytes(content)
            with silence(), limited():
                self.reader.read(given)
        except StratoscopeError:
            return "refused"
        finally:
            target.write_bytes(before)
        return "answered"


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """At most `SECONDS` of CPU, or `TooSlow`."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {SECONDS} s")

    former = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def run(folder: Path, total: int, *, first: int = 0, only: str = "", say: Callable[[str], object] = print) -> int:
    """Ask all readers about so many inputs in all; gives how many failed."""
    failures = 0
    np.random.seed(0)  # noqa: NPY002 (what a library draws must not differ between two runs)
    for reader in READERS:
        if only and only != reader.name:
            continue
        inputs, came, found = Inputs(reader, folder), Counter[str](), Counter[str]()
        begun = time.process_time()
        count = total if only else round(total * reader.share)
        for number in range(first, first + count):
            try:
                came[inputs.ask(number)] += 1
            except (Exception, TooSlow) as error:  # whatever it is: that is what is looked for
                what = f"{type(error).__name__} at {where(error)}: {str(error)[:100]!r}"
                if not found[what]:
                    say(f"FAILED {reader.name}: {what}; again: 1 --first {number} --only {reader.name!r}")
                found[what] += 1
        failures += found.total()
        seconds = time.process_time() - begun
        say(f"{reader.name}: {count:,} inputs, {came['answered']:,} answered, {came['refused']:,} refused, "
            f"{found.total()} failed; {seconds:.0f} s of CPU")  # fmt: skip
        for what, times in found.most_common():
            say(f"{times:8} {what}")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", type=int)
    parser.add_argument("--first", type=int, default=0, help="number of the first input of each reader")
    parser.add_argument("--only", default="", help="one reader")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return bool(run(Path(folder), arguments.inputs, first=arguments.first, only=arguments.only))


if __name__ == "__main__":
    sys.exit(main())
