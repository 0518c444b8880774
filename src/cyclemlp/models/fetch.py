"""Downloads into a cache: an interrupted one is resumed, and a file appears only when it is complete and checked."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from cyclemlp.errors import CheckpointError

_logger = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
MAX_FAILURES = 3  # attempts in a row without a new byte
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class _InterruptedError(ConnectionError):
    """The connection ended before the announced length."""


def fetch(url: str, target: Path, check: Callable[[Path], object], *, sha256: str = "") -> Path:
    """Return `target`, downloading it from `url` if it does not exist.

    What has arrived of an interrupted download stays next to `target`, and the next attempt, now or in another run,
    resumes from there if the server still has the same file. Of several processes at once, one downloads and the others
    wait.

    Args:
        url: http, https or file.
        target: the file's place in the cache; its folder is created.
        check: called with the complete file before it gets its name; raises CheckpointError for a wrong file.
        sha256: of the file, where it is known.

    Raises:
        CheckpointError: the download failed, or its result is not the file.
    """
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_file():
            return target
        part = target.with_name(f".{target.name}.part")
        _logger.info("downloading %s", url)
        _complete(url, part, target)
        try:
            found = _digest(part) if sha256 else ""
            if found != sha256:
                raise CheckpointError(f"its SHA-256 is {found}, not {sha256}")
            check(part)
        except CheckpointError as error:
            _forget(part)
            reason = str(error).removeprefix(f"{part}: ")
            raise CheckpointError(
                f"the download from {url} is not the weight file ({reason}); "
                f"fetch it by other means and put it at {target}"
            ) from None
        part.replace(target)
        _etag_of(part).unlink(missing_ok=True)
    return target


def _complete(url: str, part: Path, target: Path) -> None:
    """Repeat the request until `part` has the announced length; give up after `MAX_FAILURES` without a new byte."""
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, part)
            return
        except _NETWORK_ERRORS as error:
            failures = 0 if _size(part) > before else failures + 1
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if final or failures >= MAX_FAILURES:
                raise CheckpointError(_failure(url, part, target, error)) from None
            _logger.info("%s was interrupted (%s), resuming", url, error)


def _transfer(url: str, part: Path) -> None:
    """One request for what is still missing in `part`."""
    have = _size(part)
    request = urllib.request.Request(url, headers=_headers(part, have))
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is missing
        _forget(part)
        raise _InterruptedError("the file on the server has changed") from None
    with response:
        resumed = getattr(response, "status", None) == HTTPStatus.PARTIAL_CONTENT
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length and length.isdigit() else None
        _etag_of(part).write_text(response.headers.get("ETag") or "")
        name = part.name.removeprefix(".").removesuffix(".part")
        bar = tqdm(
            total=total, initial=have if resumed else 0, unit="B", unit_scale=True, desc=name, disable=None, leave=False
        )
        with bar, part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise _InterruptedError(f"{_size(part)} of {total} bytes arrived")


def _headers(part: Path, have: int) -> dict[str, str]:
    headers = {"User-Agent": "cyclemlp"}
    if have:
        headers["Range"] = f"bytes={have}-"
        etag = _etag_of(part).read_text() if _etag_of(part).is_file() else ""
        if etag and not etag.startswith("W/"):  # a weak one does not promise equal bytes
            headers["If-Range"] = etag
    return headers


def _failure(url: str, part: Path, target: Path, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP {error.code}, {error.reason}"
    kept = f" {_size(part)} bytes are kept, the next attempt resumes from there." if _size(part) else ""
    return (
        f"{url} could not be downloaded ({reason}).{kept} "
        f"Without a network, download it on another machine and put it at {target}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_of(part).unlink(missing_ok=True)


def _etag_of(part: Path) -> Path:
    return part.with_suffix(".etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
