"""JSON as rows: one value a line, or one document that holds a list; which of the two the text itself says."""

from __future__ import annotations

import ast
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from stratoscope.errors import InputError
from stratoscope.recorder.prompts.files import commands
from stratoscope.recorder.prompts.files.content import FileText
from stratoscope.recorder.prompts.files.label_columns import names_label
from stratoscope.recorder.prompts.files.table import CONTENTS, LABELS, PROMPT_COLUMNS, Python, Row, Table
from stratoscope.recorder.prompts.messages import WORDS
from stratoscope.words import listed

SPEAKERS = ("role", "from", "speaker", "author")
_MOST_DIGITS = 4_000  # of a whole number; Python itself reads 4,300


def read_json(file: FileText) -> Table:
    """Rows of a `.json`, `.jsonl` or `.ndjson` file: objects, texts, or lists of messages.

    Raises
    ------
    InputError
        It is not JSON, or not a list of such.
    """
    text = file.text.lstrip()
    if text.startswith("[") and not _is_list_each(file.text):
        items = _listed_items(file)
        _refuse_pairs(file, [value for _, value in items], f"json.load({file.opened.expression})")
        rows = [_row(value, where) for where, value in items]
        return Table(file.path, rows, _document(file, (value for _, value in items)))
    first = next((line for _, line in lines_of(file.text)), "")
    if text and not _is_json(first) and (document := _whole(file)) is not None:
        return _object_table(file, document)
    found = [(file.where(number), parse_json(line, file.where(number))) for number, line in lines_of(file.text)]
    if len(found) == 1 and file.kind == ".json":
        return _object_table(file, found[0][1])
    lines = f"[json.loads(x) for x in {file.opened.expression} if x.strip()]"
    _refuse_pairs(file, [value for _, value in found], lines)
    if any(isinstance(value, str) for _, value in found):
        lines = f'[x if isinstance(x,dict) else {{"text":x}} for x in {lines}]'
    return Table(file.path, [_row(value, where) for where, value in found], Python(file.opened.imports, lines))


def _is_list_each(text: str) -> bool:
    """Whether each of several lines is a list by itself: of texts, or of messages."""
    lines = [line for _, line in lines_of(text)]
    if len(lines) < 2 or not all(line.lstrip().startswith("[") for line in lines) or not _is_json(lines[0]):
        return False
    first = json.loads(lines[0])
    return turn_keys(first) is not None or (first != [] and all(isinstance(one, str) for one in first))


def _listed_items(file: FileText) -> list[tuple[str, Any]]:
    try:
        return list(_items(file))
    except InputError:
        if parse_cell(file.text)[1] != "ast.literal_eval":
            raise
        write = f'json.dump(ast.literal_eval({file.opened.expression}.read().strip()),open(sys.argv[2],"x"))'
        line = commands.rewrite(file.path, write, ["ast", *file.opened.imports], ".json")
        what = "is not valid JSON: it is written as Python prints it"
        raise InputError(what, where=str(file.path), fix=f"Write it as JSON: `{line}`.") from None


def _refuse_pairs(file: FileText, items: list[Any], expression: str) -> None:
    """Refuse [["…", "…"], ["…", "…"]], whose classes have no names."""
    if not items or not all(isinstance(item, list) and all(isinstance(one, str) for one in item) for item in items):
        return
    width = len(items[0])
    if width < 2 or any(len(item) != width for item in items):
        return
    kind = "pair" if width == 2 else "group"
    names = ",".join(commands.literal(f"class-{number}") for number in range(1, width + 1))
    table = Table(file.path, [], Python(file.opened.imports, expression))
    each = f"for i,r in enumerate(rows,1) for c,t in zip(({names}),r)"
    line = commands.converting(table, f'"text":t,"class":c,"{kind}":str(i)', each=each, condition="t")
    raise InputError(
        f"is a list of lists of {width} texts",
        where=str(file.path),
        fix=f"If each list is a {kind} of texts of {width} classes (call them in the line what they are): `{line}`.",
    )


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, by number; only LF and CRLF end a line, as U+2028 may be part of a text."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def parse_json(text: str, where: str) -> Any:
    """One JSON value.

    Raises
    ------
    InputError
        It is none, or a key of it stands twice.
    """
    try:
        return _decoder(where).decode(text)
    except json.JSONDecodeError as error:
        raise _not_json(error, where) from None
    except RecursionError:
        raise InputError("is not a prompt: its JSON is nested too deep", where=where) from None


def looks_like_json(text: str) -> bool:
    """Whether this is a JSON document that is an object or a list of such, or most of its lines are."""
    try:
        return _is_record(json.loads(text))
    except RecursionError:
        return False
    except ValueError:
        lines = [line for _, line in lines_of(text)]
        return 2 * sum(_is_record(parse_cell(line)[0]) for line in lines) >= max(1, len(lines))


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) or are_rows(value) or turn_keys(value) is not None


def parse_cell(text: str) -> tuple[Any, str]:
    """The list or object that a cell of a table holds as JSON or as Python writes it, and what reads it; else None."""
    if text.lstrip()[:1] not in ("[", "{"):
        return None, ""
    for reads, name in ((json.loads, "json.loads"), (ast.literal_eval, "ast.literal_eval")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python, about the text as if it were a program: "1is 2"
                value = reads(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if name == "json.loads" or repr(value) == text.strip():  # Python joins 'it''s' and ['a' 'b'] to one text
            return value, name
    return None, ""


def turn_keys(value: Any) -> tuple[str, str] | None:
    """Which keys of the turns of a conversation hold who speaks and what; None where this is no list of turns."""
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        return None
    pairs = ((speaker, words) for speaker in SPEAKERS for words in (*WORDS, "parts"))
    return next((pair for pair in pairs if all(turn.keys() >= {*pair} for turn in value)), None)


def _decoder(where: str) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=lambda pairs: _unique_keys(pairs, where),
        parse_int=lambda digits: _whole_number(digits, where),
    )


def _whole_number(digits: str, where: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise InputError(f"a number has {len(digits):,} digits", where=where, fix="Write it as a text, in quotes.")
    return int(digits)


def _unique_keys(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise InputError(f"the key {twice!r} stands twice", where=where, fix="Keep one of them.")
    return record


def _not_json(error: json.JSONDecodeError, where: str) -> InputError:
    return InputError(
        f"is not valid JSON: {error.msg} at character {error.colno}", where=where, fix="Correct it at this place."
    )


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _whole(file: FileText) -> Any:
    """The document that the text is; None where its first line shows the mistake as well."""
    try:
        return _decoder(str(file.path)).decode(file.text)
    except RecursionError:
        return None
    except json.JSONDecodeError as error:
        if line := _converted(file, error):
            where = file.where(error.lineno if error.pos else next(lines_of(file.text))[0])
            raise InputError(f"is not valid JSON: {line[0]}", where=where, fix=line[1]) from None
        raise _not_json(error, file.where(error.lineno)) from None


def _converted(file: FileText, error: json.JSONDecodeError) -> tuple[str, str] | None:
    """What a text that is no JSON is instead, and the line that converts it."""
    lines = [line for _, line in lines_of(file.text)]
    if not any(line.lstrip()[0] in '[{"' for line in lines):
        return "it looks like plain text", f"If each line is a prompt: `{commands.copy(file.path, '.txt')}`."
    if all(parse_cell(line)[1] == "ast.literal_eval" for line in lines[:100]):
        write = f'[json.dumps(ast.literal_eval(x))+"\\n" for x in {file.opened.expression} if x.strip()]'
        code = f'open(sys.argv[2],"x",encoding="utf-8").writelines({write})'
        line = commands.rewrite(file.path, code, ["ast", *file.opened.imports], ".jsonl")
        return "it is written as Python prints it", f"Write it as JSON: `{line}`."
    if error.msg == "Extra data" and _are_documents(file.text):
        each = "v,i=json.JSONDecoder().raw_decode(s); out.append(v); s=s[i:].lstrip().lstrip(chr(44)).lstrip()"
        write = 'open(sys.argv[2],"x",encoding="utf-8").writelines(json.dumps(v)+"\\n" for v in out)'
        code = f's={file.opened.expression}.read().strip(); out=[]; exec("while s:\\n {each}"); {write}'
        line = commands.rewrite(file.path, code, file.opened.imports, ".jsonl")
        return "it is several JSON documents, not on one line each", f"Write one a line: `{line}`."
    return None


def _are_documents(text: str) -> bool:
    """Whether this is one JSON document after the other, also with commas between them."""
    place, decoder = 0, json.JSONDecoder()
    while place < len(text):
        place = _after_blanks(text, place)
        try:
            _, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return False
        place = _after_blanks(text, place)
        while text[place : place + 1] == ",":
            place += 1
        place = _after_blanks(text, place)
    return True


def _items(file: FileText) -> Iterator[tuple[str, Any]]:
    """The items of a list, each with the line on which it begins."""
    text = file.text
    place = text.index("[") + 1
    line, counted = 1, 0
    for number in range(1, len(text)):
        place = _after_blanks(text, place)
        line, counted = line + text.count("\n", counted, place), place
        where = f"{file.where(line)}: item {number}"
        if number == 1 and text[place : place + 1] == "]":
            break
        try:
            value, place = _decoder(where).raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise _not_json(error, file.where(error.lineno)) from None
        except RecursionError:
            raise InputError("is not a prompt: its JSON is nested too deep", where=where) from None
        yield where, value
        place = _after_blanks(text, place)
        if text[place : place + 1] != ",":
            break
        place += 1
    if text[place : place + 1] != "]":
        raise _not_json(json.JSONDecodeError("Expecting ',' or ']'", text, place), _line(file, place))
    if text[place + 1 :].strip():
        after = _after_blanks(text, place + 1)
        raise InputError(
            "something stands behind the end of the list", where=_line(file, after), fix="Make it one list."
        )


def _after_blanks(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\n", "\r"):
        place += 1
    return place


def _line(file: FileText, place: int) -> str:
    return file.where(file.text.count("\n", 0, place) + 1)


def _row(value: Any, where: str) -> Row:
    if isinstance(value, dict):
        return Row(where, value)
    if isinstance(value, str):
        return Row(where, {"text": value})
    if turn_keys(value):
        return Row(where, {"messages": value})
    raise InputError(
        "is not a JSON object, a text or a list of messages", where=where, fix='Write {"text": "…"} or "…".'
    )


def _document(file: FileText, items: Iterable[Any], inside: str = "") -> Python:
    """How Python reads the items of a document, or of the list at `inside` of it, as dicts."""
    loaded = f"json.load({file.opened.expression}){inside}"
    if all(isinstance(item, dict) for item in items):
        return Python(file.opened.imports, loaded)
    rows = f'[x if isinstance(x,dict) else {{"text" if isinstance(x,str) else "messages":x}} for x in {loaded}]'
    return Python(file.opened.imports, rows)


def _object_table(file: FileText, document: Any) -> Table:
    """The rows of a document that is no list: those of the list in it; or it is one row by itself."""
    alone = Python(file.opened.imports, f"[json.load({file.opened.expression})]")
    if not isinstance(document, dict):
        return Table(file.path, [_row(document, file.where(1))], _document(file, [document]))
    _refuse_split(file, document)
    if len(document) == 1:
        ((key, value),) = document.items()
        items = value if isinstance(value, list) and key not in CONTENTS else []
        _refuse_pairs(file, items, f"json.load({file.opened.expression})[{commands.literal(key)}]")
    _refuse_by_column(file, document)
    _refuse_by_key(file, document)
    lists = [key for key, value in document.items() if are_rows(value)]
    if not lists or any(key in document for key in CONTENTS):
        return Table(file.path, [Row(file.where(1), document)], alone)
    key = next((name for name in _LISTS if name in lists), lists[0])
    if len(document) > 1:
        write = f'json.dump(json.load({file.opened.expression})[{commands.literal(key)}],open(sys.argv[2],"x"))'
        line = commands.rewrite(file.path, write, file.opened.imports, ".json")
        others = listed(repr(other) for other in document if other != key)
        raise InputError(
            f"is an object with a list {key!r} and with {others}",
            where=str(file.path),
            fix=f"If the prompts are in {key!r}: `{line}`.",
        )
    where = f"{file.path}: {key} item"
    rows = [_row(value, f"{where} {number}") for number, value in enumerate(document[key], start=1)]
    return Table(file.path, rows, _document(file, document[key], f"[{commands.literal(key)}]"))


_LISTS = ("prompts", "data", "rows", "examples", "items", "instances", "train", "validation", "test")


def are_rows(value: Any) -> bool:
    """Whether this is a list of rows, and not the turns of a conversation."""
    if not isinstance(value, list) or not value or turn_keys(value):
        return False
    return all(isinstance(one, dict | str) or turn_keys(one) for one in value)


def _refuse_by_column(file: FileText, document: dict[str, Any]) -> None:
    """Refuse {"text": ["…", "…"], "id": […]} and {"text": {"0": "…", "1": "…"}}, as tables are written by column."""
    first = next(iter(document.values()), None)
    if isinstance(first, dict):
        named = not {*document}.isdisjoint((*CONTENTS, *LABELS, *PROMPT_COLUMNS))
        if not first or not (named or all(key.isdigit() for key in first)):
            return
        same, columns = (
            all(isinstance(value, dict) and value.keys() == first.keys() for value in document.values()),
            "*(v.values() for v in d.values())",
        )
    else:
        cells = [value for value in document.values() if isinstance(value, list) and not _are_objects(value)]
        several = len(document) > 1 or "text" in document
        same, columns = several and len(cells) == len(document) and len({*map(len, cells)}) == 1, "*d.values()"
    if not same:
        return
    write = (
        f"d=json.load({file.opened.expression}); "
        f'json.dump([dict(zip(d,row)) for row in zip({columns})],open(sys.argv[2],"x"))'
    )
    line = commands.rewrite(file.path, write, file.opened.imports, ".json")
    raise InputError("is a table written column by column", where=str(file.path), fix=f"Write it row by row: `{line}`.")


def _refuse_split(file: FileText, document: dict[str, Any]) -> None:
    """Refuse {"columns": […], "index": […], "data": [[…]]}, as pandas writes a table in parts."""
    if not {"columns", "data"} <= document.keys() or not document.keys() <= {"columns", "index", "data"}:
        return
    write = (
        f"d=json.load({file.opened.expression}); "
        'json.dump([dict(zip(d["columns"],row)) for row in d["data"]],open(sys.argv[2],"x"))'
    )
    line = commands.rewrite(file.path, write, file.opened.imports, ".json")
    what = "is a table with its columns and its data apart"
    left = ", without the index" if "index" in document else ""
    raise InputError(what, where=str(file.path), fix=f"Write it row by row{left}: `{line}`.")


def _refuse_by_key(file: FileText, document: dict[str, Any]) -> None:
    """Refuse {"a": {"text": "…"}, "b": {"text": "…"}} and {"a": "…", "b": "…"}, and lists of such by class."""
    values = list(document.values())
    known = {*CONTENTS, *LABELS, *PROMPT_COLUMNS, *_LISTS}
    if len(values) < 2 or any(key.lower() in known or names_label(key) for key in document):
        return
    if all(map(are_rows, values)):
        each, key, what = "for k,v in d.items() for x in v", "class", "is an object of lists of prompts by their class"
    elif all(isinstance(value, str) for value in values) or _are_like_rows(values):
        each, key, what = "for k,x in d.items()", "id", "is an object of prompts by their id"
    else:
        return
    item = f'{{**(x if isinstance(x,dict) else {{"text":x}}),"{key}":k}}'
    write = f'd=json.load({file.opened.expression}); json.dump([{item} {each}],open(sys.argv[2],"x"))'
    line = commands.rewrite(file.path, write, file.opened.imports, ".json")
    raise InputError(what, where=str(file.path), fix=f"Write each as a row, with its key as {key}: `{line}`.")


def _are_like_rows(values: list[Any]) -> bool:
    """Whether these are objects with a key in common that is a text or a conversation in one of them."""
    if not all(isinstance(value, dict) for value in values):
        return False
    common = set.intersection(*({*value} for value in values))
    return any(
        (isinstance(value[key], str) and value[key]) or turn_keys(value[key]) for value in values for key in common
    )


def _are_objects(value: list[Any]) -> bool:
    return any(isinstance(one, dict) for one in value)
