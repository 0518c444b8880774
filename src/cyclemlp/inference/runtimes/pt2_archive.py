"""Opening a .pt2 file from a stranger: nothing in it is run or unpickled before all of it is known to be harmless.

torch.export.load unpickles tensors and custom objects, loads compiled libraries, evaluates the text of sizes, and looks
the functions of a graph up by their names, among them `torch.os.system`. Here the archive is read first; it may hold
what `cyclemlp export` writes and nothing else. torch then gets a copy of the entries that were checked, so that both
see the same archive.
"""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from cyclemlp.documents import DocumentError, parse_json
from cyclemlp.errors import CheckpointError, ConfigError
from cyclemlp.settings import held

FACTS_FILE = "cyclemlp.json"
"""The entry under extra/ that holds the metadata."""
_MODEL, _SAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = {
    "data/weights/model_weights_config.json": "data/weights/",
    "data/constants/model_constants_config.json": "data/constants/",
}
_REQUIRED = {_MODEL, _SAMPLE, *_CONFIGS, f"extra/{FACTS_FILE}", "archive_format", "archive_version"}
_ALLOWED = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|byteorder|\.data/(version|serialization_id)|"
    + "|".join(map(re.escape, sorted(_REQUIRED)))
)
_MAX_ENTRIES = 100_000
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|torchvision)\.(?!from_file\b)\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|ge|gt|le|lt|eq|ne|and_|or_|not_|getitem)"
    r"|torch\.(sym_(max|min|not|float|int|ite|sum)|_sym_sqrt)|math\.(ceil|floor|trunc|sqrt)"
)
_FUNCTIONS = re.compile(
    "Add|Mul|Pow|Integer|Float|Rational|Symbol|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|Where|Max|Min"
    "|CeilToInt|FloorToInt|TruncToInt|TruncToFloat|RoundToInt|RoundDecimal|ToFloat|Identity|LShift|RShift|PowByNatural"
    "|FloatPow|FloatTrueDiv|IntTrueDiv|Ge|Gt|Le|Lt|Eq|Ne|And|Or|Not|GreaterThan|StrictGreaterThan|LessThan"
    "|StrictLessThan|Equality|Unequality|true|false"
)
_SYMBOL = re.compile(r"(s|u|zuf)\d+")
_SYNTAX = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub, ast.BinOp)
_SYNTAX_OF_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_MAX_EXPRESSION = 20_000

OLDEST_TORCH = "2.9"
"""The first that keeps weights as plain numbers; those before pickle them, and read no others."""

_trusting = ContextVar("trusting", default=False)


def trusting(wanted: bool) -> AbstractContextManager[None]:
    """While the block runs, whether .pt2 files are loaded whatever they hold, code included."""
    return held(_trusting, wanted)


def check_torch() -> None:
    """Raise ConfigError where the installed torch neither writes nor reads .pt2 files without pickles."""
    import torch
    from packaging.version import Version  # timm needs it

    if Version(torch.__version__) < Version(OLDEST_TORCH):
        raise ConfigError(
            f".pt2 files need torch {OLDEST_TORCH} or newer, and this is torch {torch.__version__}, which pickles"
            " weights: upgrade torch, or export to onnx or openvino"
        )


def checked_archive(path: Path) -> io.BytesIO:
    """The entries of a .pt2 file that `cyclemlp export` could have written, as an archive in memory.

    Raises CheckpointError for a file that is none, or that holds anything that could run code. Within `trusting(True)`
    the file as it is.
    """
    try:
        if _trusting.get():
            return io.BytesIO(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive)
    except (zipfile.BadZipFile, OSError, NotImplementedError, EOFError, RuntimeError, UnicodeError) as error:
        raise CheckpointError(f"{path} is not a readable .pt2 file: {error}; export it again") from error
    except _RefusedError as error:
        raise _refused(path, error) from error
    try:
        _check_tensors(entries)
        entries[_MODEL] = _checked_graph(entries[_MODEL])
    except _RefusedError as error:
        raise _refused(path, error) from error
    entries[_SAMPLE] = _no_sample()
    return _written(entries)


class _RefusedError(Exception):
    """What is in the way, for the message."""


def _refused(path: Path, error: _RefusedError) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a .pt2 file of `cyclemlp export` and may run code: {error}; nothing of it was loaded."
        " Export it again, ask for it as .onnx, or give --trust if it is your own"
    )


def _entries(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Contents by name, without the folder that all of them share."""
    found = archive.infolist()
    if len(found) > _MAX_ENTRIES:
        raise _RefusedError(f"it has {len(found)} entries")
    entries: dict[str, bytes] = {}
    for entry in found:
        _, _, name = entry.filename.partition("/")
        if not _ALLOWED.fullmatch(name):
            raise _RefusedError(f"its entry {entry.filename[:80]!r} is none that is written")
        if name in entries:
            raise _RefusedError(f"its entry {name!r} is there twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise _RefusedError(f"its entry {name!r} is compressed or encrypted")
        entries[name] = archive.read(entry)
    missing = sorted(_REQUIRED - entries.keys())
    if missing:
        raise _RefusedError(f"it has no entry {missing[0]!r}")
    return entries


def _check_tensors(entries: dict[str, bytes]) -> None:
    """Weights and constants are plain numbers: no pickles, custom or opaque objects."""
    for name, folder in _CONFIGS.items():
        config = _json(entries[name], name)
        payloads = config.get("config") if isinstance(config, dict) else None
        if not isinstance(payloads, dict):
            raise _RefusedError(f"{name} lists no tensors")
        for tensor in payloads.values():
            stored = tensor.get("path_name") if isinstance(tensor, dict) else None
            if not isinstance(stored, str) or f"{folder}{stored}" not in entries:
                raise _RefusedError(f"{name} names the file {stored!r}, which is none of its tensors")
            if tensor.get("use_pickle") is not False:
                raise _RefusedError(f"{name} has pickled contents")


def _checked_graph(content: bytes) -> bytes:
    """The graph, whose functions and sizes were checked; without guards, which are Python code that is not needed."""
    graph = _json(content, _MODEL)
    if not isinstance(graph, dict):
        raise _RefusedError("its graph is no JSON object")
    if "guards_code" in graph:
        graph["guards_code"] = []
    for key, value in _strings(graph):
        if key in ("target", "as_operator") and not _OPERATORS.fullmatch(value):
            raise _RefusedError(f"its graph calls {value[:80]!r}")
        if key == "expr_str":
            _check_expression(value)
        if "__enum__" in value:
            raise _RefusedError("its graph names a class to import")
    return json.dumps(graph).encode()


def _strings(value: Any) -> Iterator[tuple[str, str]]:
    """All texts of a JSON value with the key that each stands under; iterative, as graphs may be nested deeply."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        key, each = left.pop()
        if isinstance(each, str):
            yield key, each
        elif isinstance(each, dict):
            left.extend(each.items())
            left.extend(("", name) for name in each)
        elif isinstance(each, list):
            left.extend((key, item) for item in each)


def _check_expression(text: str) -> None:
    """A size such as `Add(Symbol('s1', integer=True), Integer(1))`: torch evaluates it as Python."""
    try:
        parts = list(ast.walk(ast.parse(text, mode="eval"))) if len(text) <= _MAX_EXPRESSION else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        parts = None
    if parts is None or not all(_is_harmless(part) for part in parts):
        raise _RefusedError(f"its graph has the size {text[:80]!r}")


def _is_harmless(part: ast.AST) -> bool:
    if isinstance(part, ast.Name):
        return bool(_FUNCTIONS.fullmatch(part.id) or _SYMBOL.fullmatch(part.id))
    if isinstance(part, ast.Call):
        return isinstance(part.func, ast.Name)
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return bool(_SYMBOL.fullmatch(part.value))
    return isinstance(part, (*_SYNTAX, *_SYNTAX_OF_OPERATORS))


def _no_sample() -> bytes:
    """In place of the sample inputs, which are pickled and not needed."""
    import torch

    buffer = io.BytesIO()
    torch.save(((), {}), buffer)
    return buffer.getvalue()


def _json(content: bytes, name: str) -> Any:
    try:
        return parse_json(content)
    except DocumentError as error:
        raise _RefusedError(f"{name} {error}") from error


def _written(entries: dict[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)
    buffer.seek(0)
    return buffer
