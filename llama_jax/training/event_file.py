"""TensorBoard's event file of a training session: numbers by name and step."""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from llama_jax.files.appended import AppendedFile


class EventFile(AppendedFile):
    """An event file in `folder`, which is written before `add` returns.

    tensorboardX's own writer queues events for a thread, which a full disk ends; the queue then fills and stops the run.

    Args:
        folder: where TensorBoard looks for files; made if missing.
        purge_step: first step of this session; TensorBoard forgets what earlier ones said of it and of later steps.
    """

    def __init__(self, folder: Path, purge_step: int):
        super().__init__(folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}")
        self.append(_record(Event(wall_time=time.time(), file_version="brain.Event:2"))
                    + _record(Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START))))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers that belong to a step."""
        now = time.time()
        self.append(b"".join(_record(Event(wall_time=now, step=step, summary=scalar(name, value)))
                             for name, value in values.items()))


def _record(event: Event) -> bytes:
    """An event as a record: its length, its content, and a checksum of each."""
    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))
