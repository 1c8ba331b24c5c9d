"""Fetching data sets, against a server of our own that breaks off, lies, or is not there."""

import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

import miue_lib as mi
from miue_lib import download
from miue_lib.download import Archive, fetch


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; breaks off once after `break_after` bytes; keeps what was asked for in `asked`."""

    files: dict[str, bytes]
    break_after: int | None = None
    asked: list[tuple[str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        body = self.server.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if first >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        cut, self.server.break_after = self.server.break_after, None
        self.wfile.write(body[first:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.files, running.asked = {}, []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


BODY = bytes(range(256)) * 40


def offer(monkeypatch: pytest.MonkeyPatch, *urls: str, checksum: str = md5(BODY)) -> None:
    monkeypatch.setitem(download.ARCHIVES, "cifar10", (Archive("folder/a.bin", checksum, urls),))


def test_the_first_address_that_works_is_used(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.files["/a"] = BODY
    offer(monkeypatch, "http://127.0.0.1:1/refused", f"{server.url}/missing", f"{server.url}/a")
    fetch("cifar10", tmp_path)
    assert (tmp_path / "folder" / "a.bin").read_bytes() == BODY
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.bin"]
    asked = len(server.asked)
    fetch("cifar10", tmp_path)  # it is there now
    assert len(server.asked) == asked


def test_a_broken_download_goes_on_where_it_stopped(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.files["/a"], server.break_after = BODY, 1000
    offer(monkeypatch, f"{server.url}/a")
    with pytest.raises(ValueError, match=r"a\.bin: got .*expected one address"):
        fetch("cifar10", tmp_path)
    assert not (tmp_path / "folder" / "a.bin").exists()
    assert (tmp_path / "folder" / "a.bin.part").read_bytes() == BODY[:1000]
    fetch("cifar10", tmp_path)
    assert server.asked == [("/a", None), ("/a", "bytes=1000-")]
    assert (tmp_path / "folder" / "a.bin").read_bytes() == BODY


def test_a_wrong_file_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.files["/a"] = b"<html>404 in disguise</html>"
    offer(monkeypatch, f"{server.url}/a")
    with pytest.raises(ValueError, match=rf"MD5 {md5(server.files['/a'])}"):
        fetch("cifar10", tmp_path)
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_stale_part_is_thrown_away(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server.files["/a"] = BODY
    offer(monkeypatch, f"{server.url}/a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.bin.part").write_bytes(b"the beginning of another file")
    fetch("cifar10", tmp_path)
    assert (tmp_path / "folder" / "a.bin").read_bytes() == BODY


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def test_fashion_mnist_is_read_by_torchvision(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    archives = []
    for stem, n in (("train", 7), ("t10k", 4)):
        for kind, array in (
            ("images-idx3", random.integers(0, 256, (n, 28, 28), dtype=np.uint8)),
            ("labels-idx1", np.arange(n, dtype=np.uint8)),
        ):
            name = f"{stem}-{kind}-ubyte.gz"
            server.files[f"/{name}"] = body = idx(array)
            archives.append(Archive(f"FashionMNIST/raw/{name}", md5(body), (f"{server.url}/{name}",)))
    monkeypatch.setitem(download.ARCHIVES, "fashion-mnist", tuple(archives))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", [(Path(a.path).name, a.md5) for a in archives])
    train, test = mi.load("fashion-mnist", root=tmp_path, device="cpu")
    assert train.images.shape == (7, 1, 28, 28)
    assert test.labels.tolist() == [0, 1, 2, 3]
    assert train.classes[9] == "Ankle boot"
    assert len(server.asked) == 4


def test_cifar10_is_read_by_torchvision(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    files = {f"data_batch_{i}": {"data": pixels[i : i + 1].reshape(1, -1), "labels": [i]} for i in range(1, 6)} | {
        "test_batch": {"data": pixels[:1].reshape(1, -1), "labels": [0]},
        "batches.meta": {"label_names": [*"abcdefghij"]},
    }
    packed, sums = io.BytesIO(), {}
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            body = pickle.dumps(content)
            sums[name] = md5(body)
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    server.files["/c"] = packed.getvalue()
    whole = md5(packed.getvalue())
    monkeypatch.setitem(download.ARCHIVES, "cifar10", (Archive("cifar-10-python.tar.gz", whole, (f"{server.url}/c",)),))
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", whole)
    monkeypatch.setattr(
        datasets.CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)]
    )
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    train, test = mi.load("cifar10", root=tmp_path, device="cpu")
    assert train.labels.tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(train.images.numpy(), pixels[1:])
    assert np.array_equal(test.images.numpy(), pixels[:1])
    assert train.classes == tuple("abcdefghij")
    (tmp_path / "cifar-10-python.tar.gz").unlink()  # what was unpacked is enough
    mi.load("cifar10", root=tmp_path, device="cpu")
    assert len(server.asked) == 1


def test_checksums_are_torchvisions() -> None:
    known = {Path(a.path).name: a.md5 for archives in download.ARCHIVES.values() for a in archives}
    for reader in (datasets.CIFAR10, datasets.CIFAR100):
        assert known[reader.filename] == reader.tgz_md5
    for name, checksum in datasets.FashionMNIST.resources:
        assert known[name] == checksum
