import dataclasses
import gzip
import hashlib
import http.server
import io
import re
import struct
import tarfile
import threading

import numpy as np
import pytest

from experiments import data
from experiments.data import SOURCES, UserError, load

COUNTS = (1,) * 10


def idx(array):
    """An IDX file's bytes."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist_arrays():
    rng = np.random.default_rng(0)
    labels = np.arange(10, dtype=np.uint8)
    images = rng.integers(0, 256, (2, 10, 28, 28), np.uint8)
    return dict(zip(data.IDX_FILES, (images[0], labels, images[1], labels[::-1]), strict=True))


def mnist_files():
    """The files of a tiny MNIST, unpacked, by name."""
    return {name: idx(array) for name, array in mnist_arrays().items()}


def cifar_files():
    """The files of a tiny CIFAR-10: two images in each training file, ten in the test file."""
    images = np.random.default_rng(0).integers(0, 256, (20, 3072), np.uint8)
    records = np.concatenate([np.arange(20, dtype=np.uint8)[:, None] % 10, images], 1)
    parts = [*np.split(records[:10], 5), records[10:]]
    return {name: part.tobytes() for name, part in zip(SOURCES["cifar10"].files, parts, strict=True)}


def tar(files):
    """A gzipped tar archive's bytes, with a folder, as CIFAR-10's."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """Data sets of ten images, and nothing of this machine's to be found."""
    for name, source in SOURCES.items():
        tiny = dataclasses.replace(source, train_counts=COUNTS, test_counts=COUNTS, mirrors=())
        monkeypatch.setitem(SOURCES, name, tiny)
    monkeypatch.setattr(data, "SHARED", tmp_path / "shared")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("JCNN_DATA", raising=False)


# Reading


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read(tmp_path, name, packed):
    files = mnist_files()
    if packed:
        files = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    got = load(name, write(tmp_path, files))
    arrays = mnist_arrays()
    assert got.train_images.dtype == got.test_images.dtype == np.uint8
    assert got.train_labels.dtype == got.test_labels.dtype == np.int32
    for a, b in zip((got.train_images[..., 0], got.train_labels), list(arrays.values())[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip((got.test_images[..., 0], got.test_labels), list(arrays.values())[2:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(got.classes) == 10


def test_cifar_is_read_from_its_binary_files(tmp_path):
    files = cifar_files()
    got = load("cifar10", write(tmp_path / "cifar-10-batches-bin", files).parent)
    assert got.train_images.shape == got.test_images.shape == (10, 32, 32, 3)
    assert got.train_labels.tolist() == got.test_labels.tolist() == list(range(10))
    record = files["data_batch_2.bin"][3073:]  # the second image of the second file is the fourth of all
    for channel in range(3):
        for row, column in ((0, 0), (0, 31), (5, 7)):
            assert got.train_images[3, row, column, channel] == record[1 + 1024 * channel + 32 * row + column]


def test_digits_have_a_fixed_split():
    got = load("digits")
    assert got.train_images.shape == (1442, 8, 8, 1)
    assert got.test_images.shape == (355, 8, 8, 1)
    assert got.train_images.max() == 16
    share = np.bincount(got.test_labels) / (np.bincount(got.test_labels) + np.bincount(got.train_labels))
    assert np.all((share > 0.19) & (share <= 0.2))
    assert got.test_labels[:12].tolist() == load("digits").test_labels[:12].tolist()


def corrupt(name, **change):
    """The tiny MNIST with one file changed by a function of its bytes."""
    files = mnist_files()
    for key, f in change.items():
        wanted = next(file for file in files if file.startswith(key.replace("_", "-")))
        files[wanted + name] = f(files.pop(wanted))
    return files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            corrupt("", train_images=lambda b: b"\x01" + b[1:]),
            "train-images.*got the IDX header '01.*expected 00000803",
        ),
        (
            corrupt("", train_labels=lambda b: b[:6]),
            "train-labels.*got the IDX header '000008010000'.*and 1 sizes",
        ),
        (corrupt("", train_labels=lambda b: b""), "train-labels.*got the IDX header ''"),
        (
            corrupt("", t10k_images=lambda b: b[:-3]),
            "t10k-images.*got 7837 bytes of data, expected 7840 for shape",
        ),
        (corrupt("", t10k_images=lambda b: b + b"x"), "t10k-images.*got 7841 bytes of data, expected 7840"),
        (
            corrupt(".gz", train_images=lambda b: gzip.compress(b)[:-9]),
            "train-images.*gz: got an unreadable file",
        ),
        (corrupt(".gz", train_images=lambda b: b), "train-images.*gz: got an unreadable file"),
        (
            corrupt("", train_labels=lambda b: idx(np.arange(9, dtype=np.uint8))),
            "mnist training set: got 10 images and 9 labels, expected as many",
        ),
        (
            corrupt("", t10k_labels=lambda b: idx(np.zeros(10, np.uint8))),
            "mnist test set: got .10, 0.* images of the classes",
        ),
        (
            corrupt("", t10k_labels=lambda b: idx(np.arange(1, 11, dtype=np.uint8))),
            "mnist test set: got .0, 1, .* images of the classes",
        ),
        (
            corrupt("", train_images=lambda b: idx(np.zeros((10, 27, 28), np.uint8))),
            r"mnist training set: got images of shape \(27, 28, 1\), expected \(28, 28, 1\)",
        ),
    ],
)
def test_bad_idx_files_are_refused(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        load("mnist", write(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_bad_cifar_files_are_refused(tmp_path):
    files = cifar_files()
    folder = write(tmp_path, files | {"data_batch_1.bin": files["data_batch_1.bin"][:-1]})
    with pytest.raises(UserError, match=r"data_batch_1.bin: got 6145 bytes, expected a multiple of 3073"):
        load("cifar10", folder)
    write(tmp_path, files | {"data_batch_1.bin": files["data_batch_1.bin"][:3073]})
    with pytest.raises(UserError, match=r"cifar10 training set: got \(1, 0, 1, .* images of the classes"):
        load("cifar10", folder)


# Searching


def test_an_unknown_name_is_refused():
    message = "^--dataset: got 'svhn', expected one of digits, mnist, fashion_mnist, cifar10$"
    with pytest.raises(UserError, match=message):
        load("svhn")


def test_a_folder_without_the_files_is_refused(tmp_path):
    write(tmp_path, dict(list(mnist_files().items())[:3]))
    with pytest.raises(UserError) as caught:
        load("mnist", tmp_path)
    assert str(caught.value) == (
        f"--data-dir: got {tmp_path} without the files of mnist, expected {', '.join(data.IDX_FILES)}"
        " (or .gz) in it or in its folder mnist"
    )


def test_places_are_searched_in_order(tmp_path, monkeypatch):
    folders = ["given/mnist", "env", "shared/mnist", "cache/jcnn/mnist"]
    for value, folder in enumerate(folders):
        labels = np.roll(np.arange(10, dtype=np.uint8), value)
        write(tmp_path / folder, mnist_files() | {"train-labels-idx1-ubyte": idx(labels)})
    monkeypatch.setenv("JCNN_DATA", str(tmp_path / "env"))
    first_labels = []
    for given, folder in ((tmp_path / "given", "given/mnist"), *((None, folder) for folder in folders[1:])):
        first_labels.append(load("mnist", given).train_labels.tolist().index(0))
        (tmp_path / folder / "train-images-idx3-ubyte").unlink()
    assert first_labels == [0, 1, 2, 3]


# Downloading


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        content, length = self.server.files.get(self.path, (None, 0))
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """An HTTP server; `files` maps a path to what it sends and the length that it says it sends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = {}
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def serve(server, monkeypatch, name, files, mirrors=None):
    """Makes `files` the downloads of data set `name`."""
    server.files = {f"/{file}": (content, len(content)) for file, content in files.items()}
    md5s = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
    source = dataclasses.replace(SOURCES[name], downloads=md5s, mirrors=mirrors or (server.url,))
    monkeypatch.setitem(SOURCES, name, source)


def serve_mnist(server, monkeypatch, mirrors=None):
    files = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files().items()}
    serve(server, monkeypatch, "mnist", files, mirrors)


def cached(tmp_path):
    return sorted(str(path.relative_to(tmp_path / "cache")) for path in (tmp_path / "cache").rglob("*.*"))


def test_a_download_is_kept_in_the_cache(server, monkeypatch, tmp_path, capfd):
    serve_mnist(server, monkeypatch)
    first = load("mnist")
    assert cached(tmp_path) == sorted(f"jcnn/mnist/{name}.gz" for name in data.IDX_FILES)
    server.files = {}
    np.testing.assert_array_equal(load("mnist").train_images, first.train_images)
    assert capfd.readouterr() == ("", "")  # no bar where there is no terminal


def test_an_archive_is_unpacked(server, monkeypatch, tmp_path):
    serve(
        server,
        monkeypatch,
        "cifar10",
        {"cifar-10-binary.tar.gz": tar(cifar_files() | {"../escape.txt": b"!"})},
    )
    assert load("cifar10").train_images.shape == (10, 32, 32, 3)
    assert cached(tmp_path) == sorted(f"jcnn/cifar10/{name}" for name in SOURCES["cifar10"].files)


def test_the_second_mirror_is_asked(server, monkeypatch):
    serve_mnist(server, monkeypatch, mirrors=(server.url + "gone/", server.url))
    assert len(load("mnist").train_images) == 10


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: (content[:-1] + b"x", len(content)), "got MD5 [0-9a-f]{32}, expected [0-9a-f]{32}"),
        (lambda content: (content[:-5], len(content)), "got .*expected"),
        (lambda content: (content[:-5], len(content) - 5), "got MD5"),
        (lambda content: (None, 0), "HTTP Error 404"),
    ],
    ids=["wrong checksum", "truncated", "short", "404"],
)
def test_a_bad_download_leaves_nothing_behind(server, monkeypatch, tmp_path, damage, message):
    serve_mnist(server, monkeypatch)
    last = "/t10k-labels-idx1-ubyte.gz"
    server.files[last] = damage(server.files[last][0])
    with pytest.raises(
        UserError, match=f"^mnist: got no download .http://.*{last}: .*{message}.*--data-dir"
    ) as caught:
        load("mnist")
    assert "\n" not in str(caught.value)
    assert cached(tmp_path) == []
    assert not list((tmp_path / "cache").rglob("partial-*"))


def test_an_interrupted_download_leaves_nothing_behind(server, monkeypatch, tmp_path):
    serve_mnist(server, monkeypatch)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load("mnist")
    assert cached(tmp_path) == []
    assert not list((tmp_path / "cache").rglob("partial-*"))


def test_without_a_network_the_error_says_what_to_do(server, monkeypatch, tmp_path):
    serve_mnist(server, monkeypatch, mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(
        UserError, match=r"^mnist: got no download .*127.0.0.1:9/.*refused.*--data-dir, a folder"
    ):
        load("mnist")
    assert cached(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_refused(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "file"))):
        load("mnist")
