"""The table of published weights, and downloads from a server that misbehaves into the cache and the model."""

import hashlib
import http.client
import io
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from packaging.version import Version
from torch import Tensor

from cyclemlp.errors import CheckpointError
from cyclemlp.models import fetch as fetch_module
from cyclemlp.models import weights as weights_module
from cyclemlp.models.checkpoints import read_state_dict
from cyclemlp.models.fetch import fetch
from cyclemlp.models.layouts import to_authors_layout
from cyclemlp.models.weights import WEIGHTS, cache_folder, fetch_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Behaviour:
    """What the server does; `log` is what it was asked."""

    body: bytes = b""
    break_after: int | None = None
    """Close the connection after this number of bytes of each answer."""
    announced: int | None = None
    """The length it claims."""
    ranges: bool = True
    etag: str = '"one"'
    content_range: str = ""
    """Sent in place of the true one; {start} and {total} are replaced."""
    obeys_if_range: bool = True
    redirect: str = ""
    status: int = 200
    log: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        behaviour: Behaviour = self.server.behaviour  # type: ignore[attr-defined]
        asked = self.headers.get("Range")
        behaviour.log.append(asked)
        if behaviour.status != 200:
            self.send_error(behaviour.status)
            return
        if behaviour.redirect:
            self.send_response(302)
            self.send_header("Location", behaviour.redirect)
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and behaviour.ranges else 0
        if self.headers.get("If-Range", behaviour.etag) != behaviour.etag and behaviour.obeys_if_range:
            start = 0
        if start and start >= len(behaviour.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(behaviour.body)}")
            self.end_headers()
            return
        body = behaviour.body[start:]
        self.send_response(206 if start else 200)
        if behaviour.etag:
            self.send_header("ETag", behaviour.etag)
        total = behaviour.announced or len(behaviour.body)
        if start:
            content_range = behaviour.content_range or "bytes {start}-{end}/{total}"
            self.send_header("Content-Range", content_range.format(start=start, end=total - 1, total=total))
        announced = behaviour.announced - start if behaviour.announced else len(body)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(body[: behaviour.break_after])


@dataclass
class Server:
    url: str
    behaviour: Behaviour


@pytest.fixture
def server() -> Iterator[Server]:
    local = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    local.behaviour = Behaviour()  # type: ignore[attr-defined]
    thread = threading.Thread(target=local.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Server(f"http://127.0.0.1:{local.server_address[1]}/weights.pth", local.behaviour)  # type: ignore[attr-defined]
    local.shutdown()
    local.server_close()
    thread.join()


@pytest.fixture(scope="module")
def ours() -> dict[str, Tensor]:
    torch.manual_seed(2)
    state_dict: dict[str, Tensor] = timm.create_model("cyclemlp_nano").state_dict()
    return state_dict


@pytest.fixture(scope="module")
def file(ours: dict[str, Tensor]) -> bytes:
    content = io.BytesIO()
    torch.save({"model": to_authors_layout(ours)}, content)
    return content.getvalue()


@pytest.fixture
def published(server: Server, file: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """As if the authors had published weights for nano, on the local server."""
    server.behaviour.body = file
    entry = replace(WEIGHTS["cyclemlp_b1"], url=server.url, file="CycleMLP_nano.pth")
    monkeypatch.setitem(weights_module.WEIGHTS, "cyclemlp_nano", entry)
    monkeypatch.setenv("CYCLEMLP_CACHE", str(tmp_path))
    return server


def anything(path: Path) -> None:
    """A check that accepts every file."""


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix not in (".lock", ".sha256")}


def test_table() -> None:
    assert {name: entry.top1 for name, entry in WEIGHTS.items() if name.startswith("cyclemlp_b")} == {
        "cyclemlp_b1": 78.9,
        "cyclemlp_b2": 81.6,
        "cyclemlp_b3": 82.4,
        "cyclemlp_b4": 83.0,
        "cyclemlp_b5": 83.2,
        "cyclemlp_base": 83.4,
    }
    for name, entry in WEIGHTS.items():
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.url == entry.url
        assert cfg.crop_pct == 0.875  # 224 of 256 pixels for every model, as the authors' datasets.py has it
        assert cfg.license == ("" if entry.note else "mit")
    assert not timm.get_pretrained_cfg("cyclemlp_nano").has_weights


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CYCLEMLP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "weights"
    monkeypatch.delenv("CYCLEMLP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "cyclemlp" / "weights"


def test_fetched_once(published: Server, file: bytes) -> None:
    path = fetch_weights("cyclemlp_nano")
    assert path.read_bytes() == file
    assert fetch_weights("cyclemlp_nano") == path
    assert published.behaviour.log == [None]
    assert left_in(path.parent) == {"CycleMLP_nano.pth"}


def test_resumes_where_it_was_interrupted(published: Server, file: bytes) -> None:
    published.behaviour.break_after = len(file) // 4 + 1
    path = fetch_weights("cyclemlp_nano")
    assert path.read_bytes() == file
    step = len(file) // 4 + 1
    assert published.behaviour.log == [None, *(f"bytes={n * step}-" for n in (1, 2, 3))]


def test_resumes_in_another_run(published: Server, file: bytes) -> None:
    published.behaviour.break_after = 1000
    published.behaviour.ranges = False  # every answer starts from the beginning, so only the first adds bytes
    with pytest.raises(CheckpointError, match="1000 bytes are kept, the next attempt resumes from there"):
        fetch_weights("cyclemlp_nano")
    assert len(published.behaviour.log) == 4
    published.behaviour.break_after, published.behaviour.ranges = None, True
    assert fetch_weights("cyclemlp_nano").read_bytes() == file
    assert published.behaviour.log[-1] == "bytes=1000-"


def test_starts_again_when_the_file_there_has_changed(server: Server, tmp_path: Path) -> None:
    server.behaviour.body, server.behaviour.break_after, server.behaviour.ranges = b"old" * 100, 30, False
    with pytest.raises(CheckpointError):
        fetch(server.url, tmp_path / "f", anything)
    server.behaviour.body, server.behaviour.break_after, server.behaviour.ranges = b"new" * 100, None, True
    server.behaviour.etag = '"two"'
    assert fetch(server.url, tmp_path / "f", anything).read_bytes() == b"new" * 100


def test_part_that_is_complete_or_too_long(server: Server, tmp_path: Path) -> None:
    server.behaviour.body = b"abc" * 100
    for name, part in (("complete", server.behaviour.body), ("long", b"x" * 400)):
        (tmp_path / f".{name}.part").write_bytes(part)
        assert fetch(server.url, tmp_path / name, anything).read_bytes() == b"abc" * 100
    assert left_in(tmp_path) == {"complete", "long"}


@pytest.mark.parametrize("lie", [10, -10])
def test_length_that_is_a_lie(published: Server, file: bytes, lie: int, tmp_path: Path) -> None:
    published.behaviour.announced = len(file) + lie
    if lie > 0:  # its own answer to the request for the rest shows that there is none
        assert fetch_weights("cyclemlp_nano").read_bytes() == file
        return
    with pytest.raises(CheckpointError, match=r"is not the weight file .*not a readable weight file"):
        fetch_weights("cyclemlp_nano")
    assert left_in(tmp_path / "weights") == set()


def test_length_that_is_a_lie_without_ranges(published: Server, file: bytes) -> None:
    published.behaviour.announced, published.behaviour.ranges = len(file) + 10, False
    with pytest.raises(
        CheckpointError, match=rf"could not be downloaded \({len(file)} of {len(file) + 10} bytes arrived\)"
    ):
        fetch_weights("cyclemlp_nano")


def test_page_instead_of_a_file(published: Server, tmp_path: Path) -> None:
    published.behaviour.body = b"<!DOCTYPE html><html>Sign in</html>"
    with pytest.raises(CheckpointError, match="is not the weight file") as caught:
        fetch_weights("cyclemlp_nano")
    assert f"put it at {tmp_path / 'weights' / 'CycleMLP_nano.pth'}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_in(tmp_path / "weights") == set()


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (503, 3)])
def test_refusal(published: Server, status: int, requests: int, tmp_path: Path) -> None:
    published.behaviour.status = status
    with pytest.raises(CheckpointError, match=f"HTTP {status}"):
        fetch_weights("cyclemlp_nano")
    assert len(published.behaviour.log) == requests
    assert left_in(tmp_path / "weights") == set()


def test_offline(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"could not be downloaded .*Without a network, download it on another machine"
    ):
        fetch("http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth", read_state_dict)


def test_digest(server: Server, tmp_path: Path) -> None:
    server.behaviour.body = b"abc"
    digest = hashlib.sha256(b"abc").hexdigest()
    assert fetch(server.url, tmp_path / "right", anything, sha256=digest).is_file()
    with pytest.raises(CheckpointError, match=f"SHA-256 is {digest}, not 0000"):
        fetch(server.url, tmp_path / "wrong", anything, sha256="0" * 64)


@pytest.mark.parametrize("etag", ["", 'W/"weak"', "bare"])
def test_only_a_strong_etag_lets_a_download_continue(server: Server, etag: str, tmp_path: Path) -> None:
    """Otherwise the second half could be of another file."""
    server.behaviour.etag, server.behaviour.body, server.behaviour.break_after = etag, b"old" * 100, 150
    with pytest.raises(CheckpointError, match="150 of 300 bytes arrived"):
        fetch(server.url, tmp_path / "f", anything)
    server.behaviour.body, server.behaviour.break_after = b"new" * 100, None
    assert fetch(server.url, tmp_path / "f", anything).read_bytes() == b"new" * 100
    assert set(server.behaviour.log) == {None}


@pytest.mark.parametrize(
    "lie", ["bytes 0-99/300", "bytes {start}-{end}/301", "bytes {start}-{end}/*", "octets {start}", "bytes 9e9-1/x"]
)
def test_another_part_than_was_asked_for_is_never_appended(server: Server, lie: str, tmp_path: Path) -> None:
    server.behaviour.body, server.behaviour.break_after, server.behaviour.content_range = b"abc" * 100, 100, lie
    with pytest.raises(CheckpointError, match=r"another part of the file|100 of 300 bytes") as caught:
        fetch(server.url, tmp_path / "f", anything)
    assert "\n" not in str(caught.value)
    assert len(server.behaviour.log) < 10
    server.behaviour.break_after = None
    assert fetch(server.url, tmp_path / "f", anything).read_bytes() == b"abc" * 100


def test_a_server_that_ignores_if_range(server: Server, tmp_path: Path) -> None:
    server.behaviour.body, server.behaviour.break_after, server.behaviour.ranges = b"old" * 100, 30, False
    with pytest.raises(CheckpointError):
        fetch(server.url, tmp_path / "f", anything)
    server.behaviour.body, server.behaviour.break_after, server.behaviour.ranges = b"new" * 100, None, True
    server.behaviour.etag, server.behaviour.obeys_if_range = '"two"', False
    assert fetch(server.url, tmp_path / "f", anything).read_bytes() == b"new" * 100


@pytest.mark.parametrize("announced", [2000, None])
def test_the_size_is_bounded(
    server: Server, announced: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "MAX_BYTES", 1000)
    if announced is None:
        monkeypatch.setattr(fetch_module, "_length", lambda _response: None)
    server.behaviour.body = b"x" * 2000
    with pytest.raises(CheckpointError, match="over the limit of 1000 bytes for a weight file; nothing was kept"):
        fetch(server.url, tmp_path / "f", anything)
    assert left_in(tmp_path) == set()
    assert len(server.behaviour.log) == 1


def test_the_digest_of_the_first_download_is_kept(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.behaviour.body = b"abc"
    target = fetch(server.url, tmp_path / "f", anything)
    digest = hashlib.sha256(b"abc").hexdigest()
    assert (tmp_path / "f.sha256").read_text() == f"{digest}  f\n"
    assert digest in caplog.text
    target.unlink()
    server.behaviour.body = b"abd"
    with pytest.raises(CheckpointError, match=rf"not '?{digest}.* if the publisher has changed the file") as caught:
        fetch(server.url, target, anything)
    assert "\n" not in str(caught.value)
    (tmp_path / "f.sha256").unlink()
    assert fetch(server.url, target, anything).read_bytes() == b"abd"


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/weights.pth", "file:///etc/hostname"])
def test_redirects_to_other_protocols(server: Server, place: str, tmp_path: Path) -> None:
    server.behaviour.redirect = place
    with pytest.raises(CheckpointError, match=r"which is not followed|is not allowed"):
        fetch(server.url, tmp_path / "f", anything)


@pytest.mark.parametrize("url", ["weights.pth", "http://a..b/weights.pth", "http://[::1/weights.pth", "odd://x/y"])
def test_addresses_that_are_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be downloaded") as caught:
        fetch(url, tmp_path / "f", anything)
    assert "\n" not in str(caught.value)


@pytest.fixture
def secure(server: Server, tmp_path: Path) -> Iterator[Server]:
    """The same behaviour over TLS, with a certificate that nobody has signed."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, stderr=-3)
    local = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    local.behaviour = server.behaviour  # type: ignore[attr-defined]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    local.socket = context.wrap_socket(local.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=local.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Server(f"https://127.0.0.1:{local.server_address[1]}/weights.pth", server.behaviour)
    local.shutdown()
    local.server_close()
    thread.join()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_https(secure: Server, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)  # it would print a traceback
    secure.behaviour.body = b"abc" * 100
    with pytest.raises(CheckpointError, match="the server's certificate is not trusted: self-signed") as caught:
        fetch(secure.url, tmp_path / "f", anything)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    secure.behaviour.break_after = 120
    assert fetch(secure.url, tmp_path / "f", anything).read_bytes() == b"abc" * 100
    secure.behaviour.redirect = server.url
    with pytest.raises(CheckpointError, match=f"redirects from https to {server.url}, which is not followed"):
        fetch(secure.url, tmp_path / "g", anything)


def test_tls_errors_are_retried(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that was damaged on the way ends one connection, not the download."""
    server.behaviour.body = b"abc" * 100
    usual, failures = http.client.HTTPResponse.read, iter([ssl.SSLError(1, "bad record mac"), TimeoutError()])

    def read(response: http.client.HTTPResponse, amount: int | None = None) -> bytes:
        if (error := next(failures, None)) is not None:
            raise error
        return usual(response, amount)

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    assert fetch(server.url, tmp_path / "f", anything).read_bytes() == b"abc" * 100


def test_several_at_once_fetch_once(published: Server, file: bytes) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetch_weights("cyclemlp_nano"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert published.behaviour.log == [None]


def test_models_without_published_weights() -> None:
    with pytest.raises(RuntimeError, match=r"No pretrained weights exist for cyclemlp_nano. Use `pretrained=False`"):
        timm.create_model("cyclemlp_nano", pretrained=True)
    with pytest.raises(CheckpointError, match="no weights are published for model 'cyclemlp_nano'"):
        fetch_weights("cyclemlp_nano")
    with pytest.raises(CheckpointError, match="Did you mean 'cyclemlp_b1'"):
        fetch_weights("cyclemlp_b11")


@pytest.mark.parametrize("options", [{}, {"num_classes": 10}, {"in_chans": 1}, {"features_only": True}])
def test_pretrained_through_timm(
    published: Server, ours: dict[str, Tensor], options: dict[str, Any], tmp_path: Path
) -> None:
    model = timm.create_model("cyclemlp_nano", pretrained=True, **options)
    own = getattr(model, "model", model).state_dict() if "features_only" in options else model.state_dict()
    assert torch.equal(own["stages.3.blocks.1.norm2.weight"], ours["stages.3.blocks.1.norm2.weight"])
    assert torch.equal(own["stages.1.downsample.conv.weight"], ours["stages.1.downsample.conv.weight"])
    timm.create_model("cyclemlp_nano", pretrained=True, cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "CycleMLP_nano.pth").is_file()
    assert published.behaviour.log == [None, None]


def test_url_of_ones_own(server: Server, file: bytes, ours: dict[str, Tensor], tmp_path: Path) -> None:
    server.behaviour.body = file
    overlay = {"url": f"{server.url}?download=1"}
    model = timm.create_model("cyclemlp_nano", pretrained=True, pretrained_cfg_overlay=overlay, cache_dir=tmp_path)
    assert torch.equal(model.stem.weight, ours["stem.weight"])
    assert (tmp_path / "weights.pth").is_file()


@pytest.mark.skipif(Version(timm.__version__) < Version("1.0.31"), reason="timm reads no safetensors by `local-dir:`")
@pytest.mark.parametrize(("name", "option"), [("cyclemlp_nano", {"stepsize": 5}), ("asmlp_tiny", {"shift_size": 3})])
def test_hub_folder(name: str, option: dict[str, int], tmp_path: Path) -> None:
    """The folder that `timm.models.push_to_hf_hub` uploads, as `local-dir:` reads it."""
    model = timm.create_model(name, num_classes=3, in_chans=4, **option).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True, model_config={"label_names": ["a", "b", "c"]})
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    x = torch.randn(1, 4, 33, 64)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    assert again.num_classes == 3
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True)
    assert torch.equal(features.model.stages[0].blocks[0].norm1.weight, model.stages[0].blocks[0].norm1.weight)
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=5)
    assert other.num_classes == 5


def test_host_that_needs_a_browser(parity: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is requested; one line says what to do, and the file is used once it is there."""
    monkeypatch.setenv("CYCLEMLP_CACHE", str(tmp_path))
    place = tmp_path / "weights" / "activemlp_xtiny.pth"
    with pytest.raises(CheckpointError, match="a host that needs a browser: open https://1drv") as caught:
        timm.create_model("activemlp_xtiny", pretrained=True)
    assert str(caught.value).endswith(f"put it at {place}")
    assert "\n" not in str(caught.value)
    place.parent.mkdir()
    weights = parity.state_dict("activemlp_xtiny")
    torch.save({"model": weights}, place)
    model = timm.create_model("activemlp_xtiny", pretrained=True, num_classes=3)
    assert torch.equal(model.stages[1].downsample.conv.weight, weights["blocks.0.1.downsample.proj.weight"])
    assert torch.equal(model.stages[3].position.conv.bias, weights["pos_blocks.3.proj.bias"])
