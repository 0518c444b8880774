"""The only readers of JSON, YAML and XML: every file that others may have written goes through one of them.

Each returns plain values or raises DocumentError, whatever the file holds: no code is run, no other file is opened, and
neither time nor memory grows beyond what the size of the file explains.
"""

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import yaml

MAX_ANNOTATION_BYTES = 2**32
"""Of a JSON file that lists the labels of a whole data set; COCO's has half a gigabyte."""
MAX_JSON_BYTES = 2**26
MAX_YAML_BYTES = 2**20
MAX_XML_BYTES = 2**23
MAX_YAML_VALUES = 50_000
"""Of a YAML file, also with its aliases written out; PyYAML reads some 20,000 in a second."""
MAX_YAML_DEPTH = 50
MAX_NUMBER_LENGTH = 40
"""Characters of a number in YAML."""
MAX_SHOWN = 80
MAX_INTEGER = 2**63 - 1
"""Of whole numbers; libraries for annotations keep them in 64 bits."""

_PLAIN_XML = "write plain XML in UTF-8"
_YAML_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")


class DocumentError(ValueError):
    """A file is not what its reader reads; the message continues the name of the file: "is not JSON (...)"."""

    def __init__(self, what: str, fix: str = "replace it") -> None:
        super().__init__(what)
        self.fix = fix


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The values in a JSON file. Raises DocumentError, also for a file that cannot be read."""
    return parse_json(_content(path, max_bytes))


def parse_json(content: bytes | str) -> Any:
    """The values in a JSON text, UTF-8 if it is bytes. Raises DocumentError."""
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        return json.loads(text)
    except RecursionError as error:
        raise DocumentError("is not JSON that can be read (it is nested too deeply)") from error
    except ValueError as error:  # no UTF-8, no JSON, a number of thousands of digits
        raise DocumentError(f"is not JSON ({shown(error)})") from error


def read_yaml(path: Path) -> Any:
    """The values in a YAML file: null, true, numbers, texts, lists and mappings. Raises DocumentError as `read_json`.

    A date stays the text that it is; other types, such as !!binary, are refused.
    """
    import yaml

    content = _content(path, MAX_YAML_BYTES)
    try:
        loader = _yaml_loader()(content.decode("utf-8-sig"))
        try:
            node = loader.get_single_node()
            _check_yaml(node)
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError as error:
        raise DocumentError("is not YAML that can be read (it is nested too deeply)") from error
    except DocumentError:
        raise
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DocumentError(f"is not YAML ({_place(error)})") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:  # for a value such as `!!bool 3` or `!!int ''`
        raise DocumentError("is not YAML (a value is not of its type)") from error


def read_xml(path: Path) -> ET.Element:
    """The root of an XML file without document type. Raises DocumentError as `read_json`."""
    content = _content(path, MAX_XML_BYTES)
    try:
        return ET.fromstring(content, ET.XMLParser(target=_XmlBuilder()))
    except ET.ParseError as error:
        raise DocumentError(f"is not XML ({error})") from error
    except LookupError as error:
        raise DocumentError(f"is not XML that can be read ({error})", _PLAIN_XML) from error
    except DocumentError:
        raise
    except ValueError as error:  # an encoding that the parser does not know
        raise DocumentError(f"is not XML that can be read ({shown(error)})", _PLAIN_XML) from error


def shown(value: object) -> str:
    """A value in one line of limited length, for a message."""
    try:
        return _short(str(value) if isinstance(value, Exception) else repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__} that is too large to show"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN else line[: MAX_SHOWN - 1] + "…"


def finite_number(value: object) -> float | None:
    """A number of JSON or YAML as float; None for what is no number, or not finite, or beyond the range of float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole_number(value: object) -> int | None:
    """A whole number of at most 64 bits, also one that was written as 3.0 or "3"; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        digits = text.removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) < MAX_NUMBER_LENGTH else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_INTEGER:
        return None
    return value


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise DocumentError(f"has {size / 2**20:.0f} MB, over the limit of {max_bytes / 2**20:.0f} MB")
        with path.open("rb") as file:
            # A pipe or a device has no size. Python reserves as much memory as it is asked to read.
            limit = min(max_bytes, size or MAX_JSON_BYTES)
            content = file.read(limit + 1)
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror}", "check its permissions") from error
    if len(content) > limit:
        raise DocumentError(f"has more than {limit / 2**20:.0f} MB, the limit, or grew while it was read")
    return content


class _XmlBuilder(ET.TreeBuilder):
    """Refuses document types: their entities can name other files, or expand a few lines into gigabytes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:  # noqa: ARG002  (the parser's order)
        """Called by the XML parser before it reads any entity."""
        raise DocumentError("has a DOCTYPE, which is not read", _PLAIN_XML)


def _place(error: Exception) -> str:
    """What PyYAML complains about, and where, without the lines that it quotes."""
    mark, parts = getattr(error, "problem_mark", None), [getattr(error, name, None) for name in ("context", "problem")]
    problem = ": ".join(part for part in parts if part)
    return f"{_short(problem)}, line {mark.line + 1}" if mark and problem else shown(error)


def _yaml_loader() -> "type[yaml.SafeLoader]":
    """PyYAML's safe loader with plain types alone, and numbers of limited length."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012  (as PyYAML declares it)
            first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
            for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        yaml_constructors = {  # noqa: RUF012
            tag: make
            for tag, make in yaml.SafeLoader.yaml_constructors.items()
            if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _YAML_TAGS
        }

        def compose_node(self, parent: "yaml.Node | None", index: int) -> "yaml.Node | None":
            self.count = getattr(self, "count", 0) + 1
            if self.count > MAX_YAML_VALUES:
                raise DocumentError(f"has more than {MAX_YAML_VALUES} values")
            return super().compose_node(parent, index)

        def construct_scalar(self, node: "yaml.ScalarNode | yaml.MappingNode") -> Any:
            if node.tag.endswith((":int", ":float")) and len(node.value) > MAX_NUMBER_LENGTH:
                raise DocumentError(f"has a number of {len(node.value)} characters")
            return super().construct_scalar(node)

    return Loader


def _check_yaml(root: "yaml.Node | None") -> None:
    """Raise DocumentError where aliases make the values many times what the file holds, or endless."""
    sizes: dict[int, int] = {}

    def size(node: "yaml.Node", depth: int) -> int:
        """How many values it has; 0 while it is being counted, which is where a value is part of itself."""
        if depth > MAX_YAML_DEPTH:
            raise DocumentError(f"is nested more than {MAX_YAML_DEPTH} levels deep")
        known = sizes.setdefault(id(node), -1)
        if known == 0:
            raise DocumentError("has a value that is part of itself")
        if known < 0:
            sizes[id(node)] = 0
            known = 1 + sum(size(each, depth + 1) for each in _parts(node))
            if known > MAX_YAML_VALUES:
                raise DocumentError(f"has more than {MAX_YAML_VALUES} values with its aliases written out")
            sizes[id(node)] = known
        return known

    if root is not None:
        size(root, 0)


def _parts(node: "yaml.Node") -> "Iterator[yaml.Node]":
    value = node.value
    if isinstance(value, list):
        for each in value:
            yield from each if isinstance(each, tuple) else (each,)
