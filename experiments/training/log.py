"""The metrics of a run in files: `metrics.jsonl`, a line per epoch, and events for TensorBoard."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary


class Log:
    """Writes the record of each epoch to `folder`, after those that are given.

    A file that cannot be written is told once and does not end the run: `summary.json` has all records.
    """

    def __init__(self, folder: Path, records: Sequence[dict[str, Any]], say: Callable[[str], None]):
        self.folder, self.say, self.told = folder, say, False
        self.events: EventsWriter | None = None
        self._try(lambda: self._start(records))

    def _start(self, records: Sequence[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (self.folder / "metrics.jsonl").write_text(lines)
        prefix = self.folder / "tensorboard" / "events"
        prefix.parent.mkdir(exist_ok=True)
        self.events = EventsWriter(str(prefix), f".{len(records)}")
        # What an interrupted run wrote of later epochs is void.
        start = SessionLog(status=SessionLog.START)
        self._event(Event(wall_time=time.time(), step=len(records) + 1, session_log=start))

    def add(self, record: dict[str, Any]) -> None:
        self._try(lambda: self._add(record))

    def _add(self, record: dict[str, Any]) -> None:
        with (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        values = [Summary.Value(tag=k, simple_value=v) for k, v in record.items() if k != "epoch"]
        self._event(Event(wall_time=time.time(), step=record["epoch"], summary=Summary(value=values)))

    def _event(self, event: Event) -> None:
        if self.events is not None:
            self.events.write_event(event)
            self.events.flush()

    def close(self) -> None:
        if self.events is not None:
            self._try(self.events.close)

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except OSError as error:
            if not self.told:
                self.say(f"warning: {self.folder}: metrics cannot be written ({error}); training goes on")
            self.told = True
