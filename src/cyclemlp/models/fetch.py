"""Downloads into a cache: an interrupted one is resumed, and a file appears only when it is complete and checked.

The server is not trusted to keep to HTTP: what it says of lengths and ranges is compared with what it sent before.
"""

import hashlib
import http.client
import logging
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, NoReturn

from filelock import FileLock
from tqdm import tqdm

from cyclemlp.documents import shown
from cyclemlp.errors import CheckpointError
from cyclemlp.files import write_text

_logger = logging.getLogger(__name__)

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
MAX_FAILURES = 3  # attempts in a row without a new byte
MAX_BYTES = 4 * 2**30
"""Of a file, where its size is not known; the largest weights of the family have half a gigabyte."""
_NETWORK_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})")


class _InterruptedError(ConnectionError):
    """The connection ended before the announced length."""


def fetch(url: str, target: Path, check: Callable[[Path], object], *, sha256: str = "") -> Path:
    """Return `target`, downloading it from `url` if it does not exist.

    What has arrived of an interrupted download stays next to `target`, and the next attempt, now or in another run,
    resumes from there if the server promises, by a strong ETag, that it still has the same file. Of several processes
    at once, one downloads and the others wait. The file's SHA-256 is logged and kept in `NAME.sha256`, in the
    format of `sha256sum`; where `sha256` is not given, a later download of the file has to have the one in there.

    Args:
        url: http, https or file.
        target: the file's place in the cache; its folder is created.
        check: called with the complete file before it gets its name; raises CheckpointError for a wrong file.
        sha256: of the file, where it is known.

    Raises:
        CheckpointError: the download failed, is larger than `MAX_BYTES`, left https for http, or its result is not the
            file.
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
            found = _digest(part)
            _check_digest(found, sha256, target)
            check(part)
        except CheckpointError as error:
            _forget(part)
            reason = str(error).removeprefix(f"{part}: ")
            raise CheckpointError(
                f"the download from {url} is not the weight file ({reason}); "
                f"fetch it by other means and put it at {target}"
            ) from None
        write_text(_digest_file(target), f"{found}  {target.name}\n")
        _logger.info("SHA-256 of %s: %s", target, found)
        part.replace(target)
        _etag_of(part).unlink(missing_ok=True)
    return target


def _complete(url: str, part: Path, target: Path) -> None:
    """Repeat the request until `part` has the announced length; give up after `MAX_FAILURES` without a new byte."""
    failures, most = 0, _size(part)
    while True:
        try:
            _transfer(url, part, target)
            return
        except _NETWORK_ERRORS as error:
            failures = 0 if _size(part) > most else failures + 1
            most = max(most, _size(part))  # a server that makes us start again must not go on for ever
            if _is_final(error) or failures >= MAX_FAILURES:
                raise CheckpointError(_failure(url, part, target, error)) from None
            _logger.info("%s was interrupted (%s), resuming", url, error)


def _is_final(error: Exception) -> bool:
    """Whether the same request would fail again."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code < 500
    return isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError | ValueError)


def _transfer(url: str, part: Path, target: Path) -> None:
    """One request for what is still missing in `part`."""
    have, before = _size(part), _etag_of(part).read_text().splitlines() if _etag_of(part).is_file() else []
    etag, known = (*before, "", "")[:2]
    if not etag.startswith('"'):  # without a strong one nothing tells whether the rest would be of the same file
        have = 0
    try:
        response = _open(url, have, etag)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if have and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is missing
        _start_again(part, "the file on the server has changed")
    with response:
        resumed = getattr(response, "status", None) == HTTPStatus.PARTIAL_CONTENT
        total = _announced(response, part, have, known) if resumed else _length(response)
        if total is not None and total > MAX_BYTES:
            raise CheckpointError(_too_large(url, part, target, f"{total} bytes"))
        strong = response.headers.get("ETag", "")
        strong = strong if strong.startswith('"') else ""
        if resumed and strong not in ("", etag):
            _start_again(part, "the file on the server has changed")
        _etag_of(part).write_text(f"{etag if resumed else strong}\n{'' if total is None else total}")
        with part.open("ab" if resumed else "wb") as file:
            _receive(response, file, total, url, part, target)
    if total is not None and _size(part) != total:
        raise _InterruptedError(f"{_size(part)} of {total} bytes arrived")


def _receive(response: Any, file: IO[bytes], total: int | None, url: str, part: Path, target: Path) -> None:
    """Append the body of the answer to `file`."""
    size, name = file.tell(), part.name.removeprefix(".").removesuffix(".part")
    with tqdm(total=total, initial=size, unit="B", unit_scale=True, desc=name, disable=None, leave=False) as bar:
        for chunk in _chunks(response):
            size += len(chunk)
            if size > MAX_BYTES:
                raise CheckpointError(_too_large(url, part, target, "no end"))
            file.write(chunk)
            bar.update(len(chunk))


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:  # of the connection, SSL's too; a full disk is not here
            raise _InterruptedError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to a protocol that anyone on the way can change."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        scheme = newurl.partition(":")[0].lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme != "https"):
            raise CheckpointError(
                f"{req.full_url} could not be downloaded: it redirects from {req.type} to {newurl}, which is not"
                " followed. Use the address of a server that stays with https"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, have: int, etag: str) -> Any:
    """The answer to a request for the bytes from `have` on, if the file still has this ETag; else for all."""
    headers = {"User-Agent": "cyclemlp"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    try:
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except ValueError as error:  # no address, or a name of a host that no host can have
        raise urllib.error.URLError(error) from None


def _length(response: Any) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None


def _announced(response: Any, part: Path, have: int, known: str) -> int:
    """The size of the whole file, by an answer that has to continue `part`."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not have or not found or int(found[1]) != have or (known and found[2] != known):
        _start_again(part, "the server sent another part of the file than was asked for")
    return int(found[2])


def _start_again(part: Path, why: str) -> NoReturn:
    _forget(part)
    raise _InterruptedError(why) from None


def _check_digest(found: str, sha256: str, target: Path) -> None:
    if sha256:
        if found != sha256:
            raise CheckpointError(f"its SHA-256 is {found}, not {sha256}")
        return
    pinned = _digest_file(target)
    if pinned.is_file() and (wanted := pinned.read_text(encoding="utf-8", errors="replace")[:64]) != found:
        raise CheckpointError(
            f"its SHA-256 is {found}, not {shown(wanted)} as {pinned} has it: if the publisher has changed the file, "
            "delete the latter"
        )


def _too_large(url: str, part: Path, target: Path, size: str) -> str:
    _forget(part)
    return (
        f"{url} has {size}, over the limit of {MAX_BYTES} bytes for a weight file; nothing was kept. If that is right,"
        f" fetch it by other means and put it at {target}"
    )


def _failure(url: str, part: Path, target: Path, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP {error.code}, {error.reason}"
    if isinstance(reason, ssl.SSLCertVerificationError):
        reason = f"the server's certificate is not trusted: {reason.verify_message}; check this machine's clock"
    reason = " ".join(str(reason).split())[:200]
    kept = f" {_size(part)} bytes are kept, the next attempt resumes from there." if _size(part) else ""
    return (
        f"{url} could not be downloaded ({reason}).{kept} "
        f"Without a network, download it on another machine and put it at {target}"
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_of(part).unlink(missing_ok=True)


def _etag_of(part: Path) -> Path:
    return part.with_suffix(".etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
