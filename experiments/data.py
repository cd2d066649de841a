"""The data sets of the experiments, as uint8 arrays, checked before anything trains on them.

`load(name)` looks for the files in `--data-dir`, `$JCNN_DATA`, the Debian packages' `/usr/share/datasets`
and `$XDG_CACHE_HOME/jcnn` (`~/.cache/jcnn`), in the folder itself or a subfolder named after the data set,
gzipped or not. If they are nowhere it downloads them into the cache. Downloads must have the MD5 published
with the data set; files found on disk are held to their format, image size and label counts instead, since
repackaged ones (Debian's) have other gzip headers. Nothing is unpickled: CIFAR-10 comes as binary records.
"""

import gzip
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.download import fetch, unpack

SHARED = Path("/usr/share/datasets")


class UserError(Exception):
    """A mistake of the user's or a failure of the surroundings, told in one line."""


class Dataset(NamedTuple):
    """Images uint8 `[N, H, W, C]` and labels int32 `[N]`, for training and for testing."""

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...]


class Split(NamedTuple):
    """Images uint8 `[N, H, W, C]` and labels uint8 `[N]`."""

    images: np.ndarray
    labels: np.ndarray


def read(path: Path) -> bytes:
    """The content of a file, decompressed if its name ends in `.gz`."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: got an unreadable file ({error}), expected a whole one") from None


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` axes in an IDX file, read-only."""
    raw = read(path)
    magic, header = bytes([0, 0, 8, ndim]), 4 + 4 * ndim
    if raw[:4] != magic or len(raw) < header:
        raise UserError(
            f"{path}: got the IDX header {raw[:header].hex()!r}, expected {magic.hex()} and {ndim} sizes"
        )
    shape = struct.unpack(f">{ndim}I", raw[4:header])
    if len(raw) - header != prod(shape):
        raise UserError(
            f"{path}: got {len(raw) - header} bytes of data, expected {prod(shape)} for shape {shape}"
        )
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def read_mnist(paths: Sequence[Path]) -> tuple[Split, Split]:
    """Training and test split from four IDX files: images and labels, of each split in turn."""
    arrays = [read_idx(path, ndim) for path, ndim in zip(paths, (3, 1, 3, 1), strict=True)]
    return Split(arrays[0][..., None], arrays[1]), Split(arrays[2][..., None], arrays[3])


def read_cifar(paths: Sequence[Path]) -> tuple[Split, Split]:
    """Training and test split from CIFAR-10's binary files, the last of which is the test split."""
    parts = []
    for path in paths:
        raw = np.frombuffer(read(path), np.uint8)
        if raw.size % 3073:
            raise UserError(
                f"{path}: got {raw.size} bytes, expected a multiple of 3073 (a label and 3x32x32 pixels)"
            )
        records = raw.reshape(-1, 3073)
        parts.append(Split(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]))
    train = Split(*(np.concatenate(arrays) for arrays in zip(*parts[:-1], strict=True)))
    return train, parts[-1]


@dataclass(frozen=True)
class Source:
    """Where the files of a data set come from and what they must hold.

    `folders` are the subfolders that are searched, the first one being its place in the cache; `files` are
    the unpacked names, in the order `read` takes them; `downloads` maps the files that are fetched from the
    `mirrors` to their published MD5; the counts are images per class.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[Path]], tuple[Split, Split]]
    downloads: dict[str, str]
    mirrors: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    classes: tuple[str, ...]


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

SOURCES = {
    "mnist": Source(
        folders=("mnist",),
        files=IDX_FILES,
        read=read_mnist,
        downloads={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        # The authors' own address has stopped serving the files.
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        image_shape=(28, 28, 1),
        train_counts=(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        test_counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        classes=tuple("0123456789"),
    ),
    "fashion_mnist": Source(
        folders=("fashion_mnist", "fashion-mnist"),
        files=IDX_FILES,
        read=read_mnist,
        downloads={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        image_shape=(28, 28, 1),
        train_counts=(6000,) * 10,
        test_counts=(1000,) * 10,
        classes=("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    ),
    "cifar10": Source(
        folders=("cifar10", "cifar-10-batches-bin"),
        files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
        read=read_cifar,
        downloads={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        image_shape=(32, 32, 3),
        train_counts=(5000,) * 10,
        test_counts=(1000,) * 10,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
}
NAMES = ("digits", *SOURCES)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The data set `name` (one of `NAMES`), from `data_dir` or where the module's docstring says.

    Raises:
        UserError: unknown name, `data_dir` without the files, a bad file, or a download that failed.
    """
    if name not in NAMES:
        raise UserError(f"--dataset: got {name!r}, expected one of {', '.join(NAMES)}")
    if name == "digits":
        return load_digits()
    source = SOURCES[name]
    train, test = source.read(find(name, data_dir))
    check(f"{name} training set", train, source.image_shape, source.train_counts)
    check(f"{name} test set", test, source.image_shape, source.test_counts)
    arrays = (train.images, train.labels.astype(np.int32), test.images, test.labels.astype(np.int32))
    return Dataset(name, *arrays, source.classes)


def load_digits() -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 with values 0..16.

    They come without an official split. Ours is fixed: the fifth, tenth, ... image of each class, 355 in all,
    is for testing. Neighbouring images can be of one writer, so this measures new digits of known writers.
    """
    from sklearn.datasets import load_digits as load_bunch  # slow to import, and only needed here

    bunch = load_bunch()
    labels = bunch.target.astype(np.int32)
    images = bunch.images.astype(np.uint8)[..., None]
    rank = np.empty_like(labels)  # the how-manieth of its class each image is
    for label in range(10):
        of_class = labels == label
        rank[of_class] = np.arange(of_class.sum())
    test = rank % 5 == 4
    return Dataset("digits", images[~test], labels[~test], images[test], labels[test], tuple("0123456789"))


def check(what: str, split: Split, image_shape: tuple[int, ...], counts: tuple[int, ...]) -> None:
    """Refuses a split whose images and labels are not those of the data set it is said to be."""
    if len(split.images) != len(split.labels):
        raise UserError(
            f"{what}: got {len(split.images)} images and {len(split.labels)} labels, expected as many"
        )
    if split.images.shape[1:] != image_shape:
        raise UserError(f"{what}: got images of shape {split.images.shape[1:]}, expected {image_shape}")
    found = tuple(np.bincount(split.labels, minlength=len(counts)).tolist())
    if found != counts:
        raise UserError(f"{what}: got {found} images of the classes 0, 1, ..., expected {counts}")


def find(name: str, data_dir: Path | None) -> list[Path]:
    """The files of a data set, downloaded if they are nowhere. `data_dir`, if given, is the only place."""
    source = SOURCES[name]
    if paths := on_disk(name, data_dir):
        return paths
    if data_dir is not None:
        expected = f"{', '.join(source.files)} (or .gz) in it or in its folder {' or '.join(source.folders)}"
        raise UserError(f"--data-dir: got {data_dir} without the files of {name}, expected {expected}")
    try:
        download(source, cache())
    except OSError as error:
        advice = "expected a connection or, with --data-dir, a folder that has the files"
        raise UserError(f"{name}: got no download ({error}), {advice}") from None
    return find(name, cache())


def on_disk(name: str, data_dir: Path | None) -> list[Path] | None:
    """The files of a data set where they are looked for on this machine, None if they are nowhere."""
    named = [Path(folder)] if (folder := os.environ.get("JCNN_DATA")) else []
    places = (*named, SHARED, cache()) if data_dir is None else (data_dir,)
    return next(filter(None, (locate(place, SOURCES[name]) for place in places)), None)


def cache() -> Path:
    """The folder that downloads are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jcnn"


def locate(folder: Path, source: Source) -> list[Path] | None:
    """The paths of all of a data set's files in `folder` or one subfolder, None unless all are there."""
    for place in (*(folder / sub for sub in source.folders), folder):
        choices = [(place / file, place / f"{file}.gz") for file in source.files]
        paths = [next(filter(os.path.isfile, pair), None) for pair in choices]
        if None not in paths:
            return paths
    return None


def download(source: Source, cache: Path) -> None:
    """Fetches a data set into its folder in `cache`: every file, and whole, or an OSError."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as scratch:
        for file, md5 in source.downloads.items():
            fetch([mirror + file for mirror in source.mirrors], Path(scratch, file), md5)
            if file.endswith(".tar.gz"):
                unpack(Path(scratch, file), source.files)
        folder = cache / source.folders[0]
        folder.mkdir(exist_ok=True)
        for path in Path(scratch).iterdir():
            if path.name.removesuffix(".gz") in source.files:
                path.replace(folder / path.name)
