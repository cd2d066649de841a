"""Downloading files that must have a known MD5, with a progress bar, from the first of several mirrors."""

import hashlib
import http.client
import tarfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


def unpack(archive: Path, files: Sequence[str]) -> None:
    """Writes the members called `files`, wherever they are in a tar archive, next to it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            name = PurePosixPath(member.name).name
            if name in files and (content := tar.extractfile(member)):
                archive.with_name(name).write_bytes(content.read())


def fetch(urls: Sequence[str], path: Path, md5: str) -> None:
    """Writes to `path` what the first good one of `urls` sends.

    Raises:
        OSError: none of them delivers bytes of this MD5; the message says why, for each.
    """
    failures = []
    for url in urls:
        try:
            return fetch_from(url, path, md5)
        except urllib.error.HTTPError as error:
            error.close()
            failures.append(f"{url}: {error}")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url}: {error}")
    raise OSError("; ".join(failures))


def fetch_from(url: str, path: Path, md5: str) -> None:
    digest, received = hashlib.md5(usedforsecurity=False), 0
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with (
        urllib.request.urlopen(url, timeout=30) as reply,
        path.open("wb") as file,
        Progress(*columns, console=console, disable=not console.is_terminal) as progress,
    ):
        length = reply.headers["Content-Length"]
        task = progress.add_task(f"downloading {path.name}", total=length and int(length))
        while chunk := reply.read(1 << 16):
            digest.update(chunk)
            received += file.write(chunk)
            progress.update(task, completed=received)
    if length and received != int(length):
        raise OSError(f"got {received} bytes, expected {length}")
    if digest.hexdigest() != md5:
        raise OSError(f"got MD5 {digest.hexdigest()}, expected {md5}")
