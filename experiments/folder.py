"""Where an experiment leaves its results."""

import datetime
import tempfile
from pathlib import Path

from experiments.data import UserError


def result_folder(out: Path | None, run: str) -> Path:
    """Makes `out`, or runs/`run`-TIME if that is None, and makes sure that files can be written to it.

    Raises:
        UserError: they cannot.
    """
    out = out or Path("runs", f"{run}-{datetime.datetime.now():%Y%m%d-%H%M%S}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise UserError(
            f"--out: got {out} ({error.strerror}), expected a folder that can be written to"
        ) from None
    return out
