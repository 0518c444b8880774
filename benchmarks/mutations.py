"""Damage to files, for `benchmarks.fuzz`: at random places, or where a format keeps what its reader believes."""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random

Mutator = Callable[[bytes, Random], bytes]

_BYTES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, 2, 3, 8, 255, 256, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_TAGS = (254, 256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 282, 284, 317, 320, 338, 339, 700, 34665, 34853, 37724)
_TAG_TYPES = 14
_HEAD = 512
"""Bytes at the beginning of a file that are hit as often as all others together."""
_TIFF = re.compile(rb"II\*\0|MM\0\*")
_TOKEN = re.compile(rb'"[^"]*"|[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|[\[\]{}:,<>/\n]|[^\s"\[\]{}:,<>/]+')
_TEXTS = (
    *(b"-1", b"0", b"0.5", b"-0.0", b"1e999", b"1e308", b"NaN", b"-Infinity", b"9" * 400, b"9" * 5000, b"1000000000"),
    *(b"18446744073709551616", b"null", b"true", b'""', b'"x"', b"[]", b"{}", b"[[1,2],[3]]", b"[" * 3000),
    *(b'"../../x"', b'"/etc/hostname"', b'"\\u2028\\u0000\\n"', "\u2028".encode(), b"\0", b"\xff\xfe", b"x" * 5000),
    *(b"\r", b"2024-13-45"),
    *(b"&a [*a]", b"*a", b"!!python/name:os.system ", b"!!binary x", b"<!DOCTYPE x>", b"<a>", b"&#0;", b"<<: x", b"? "),
)  # fmt: skip


def flip(content: bytes, rng: Random) -> bytes:
    """Some bytes changed."""
    out = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        end = min(_HEAD, len(out)) if rng.random() < 0.5 else len(out)
        out[rng.randrange(end)] = rng.choice((*_BYTES, rng.randrange(256)))
    return bytes(out)


def cut(content: bytes, rng: Random) -> bytes:
    """The end missing."""
    return content[: rng.randrange(len(content) + 1)]


def move(content: bytes, rng: Random) -> bytes:
    """A block copied to another place, over what is there or in front of it."""
    start, place = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    block = content[start : start + rng.choice((1, 4, 16, 64, 256))]
    return content[:place] + block + content[place + rng.choice((0, len(block))) :]


def tags(content: bytes, rng: Random) -> bytes:
    """An entry of a TIFF directory, also in the EXIF of another file, with another tag, type, count or value."""
    found = _TIFF.search(content)
    out = bytearray(content)
    try:
        base = found.start() if found else len(out)
        order = "<" if out[base : base + 1] == b"I" else ">"
        first = base + struct.unpack_from(f"{order}I", out, base + 4)[0]
        count = struct.unpack_from(f"{order}H", out, first)[0]
        place = first + 2 + 12 * rng.randrange(max(1, count))
        entry = list(struct.unpack_from(f"{order}HHII", out, place))
        for _ in range(rng.choice((1, 1, 2))):
            field = rng.randrange(4)
            entry[field] = rng.choice((_TAGS, range(_TAG_TYPES), _NUMBERS, _NUMBERS)[field])
        struct.pack_into(f"{order}HHII", out, place, *entry)
    except struct.error:
        return flip(content, rng)
    return bytes(out)


def chunks(content: bytes, rng: Random) -> bytes:
    """A chunk of a PNG changed, left out or doubled, with a checksum that is right."""
    parts, place = [], 8
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4])
        parts.append((content[place + 4 : place + 8], content[place + 8 : end - 4]))
        place = end
    chosen = rng.randrange(len(parts))
    name, data = parts[chosen]
    changed = rng.choice((flip, flip, flip, cut, move))(data, rng)
    parts[chosen : chosen + 1] = rng.choice(([(name, changed)], [(name, changed)], [], [(name, data), (name, changed)]))
    written = (len(d).to_bytes(4) + n + d + zlib.crc32(n + d).to_bytes(4) for n, d in parts)
    return content[:8] + b"".join(written)


def text(content: bytes, rng: Random) -> bytes:
    """A word or number of JSON, YAML, XML or plain text replaced, left out, or followed by another."""
    found = list(_TOKEN.finditer(content))
    for _ in range(rng.choice((1, 1, 2))):
        if not found:
            return rng.choice(_TEXTS)
        token, other = rng.choice(found), rng.choice((*_TEXTS, *(rng.choice(found)[0] for _ in range(8))))
        start = token.end() if rng.random() < 0.2 else token.start()
        content = content[:start] + (b"" if rng.random() < 0.15 else other) + content[token.end() :]
        found = list(_TOKEN.finditer(content))
    return content


def header(content: bytes, rng: Random) -> bytes:
    """The header of a safetensors file changed, with a length that is right."""
    end = 8 + int.from_bytes(content[:8], "little")
    changed = text(content[8:end], rng)
    return len(changed).to_bytes(8, "little") + changed + content[end:]


def entries(content: bytes, rng: Random) -> bytes:
    """A file in an archive changed, with a checksum that is right, left out, or renamed."""
    out = io.BytesIO()
    if not zipfile.is_zipfile(io.BytesIO(content)):  # torch's older format
        return flip(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as written:
        names = archive.namelist()
        chosen, what = rng.choice(names), rng.choice((flip, flip, text, text, cut, move, None, "renamed"))
        for name in names:
            inner = archive.read(name)
            if name == chosen and what is None:
                continue
            if name == chosen and callable(what):
                inner = what(inner, rng)
            written.writestr(f"{name}x" if name == chosen and what == "renamed" else name, inner)
    return out.getvalue()
