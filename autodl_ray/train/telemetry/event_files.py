"""Event files of TensorBoard, written in step with the caller: no thread, and the import of two protocol files."""

from __future__ import annotations

import functools
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from autodl_ray.train.telemetry.columns import is_of_machine
from autodl_ray.train.telemetry.rows import EPOCHS, STEPS, Row, read_rows

__all__ = ["EVENT_FILES", "EventFile", "write_events"]

EVENT_FILES = "events.out.tfevents.*"

_COUNTERS = ("step", "epoch", "time")


class EventFile:
    """One event file; use as a context manager. It takes the place of those that the folder had.

    Scalars are named ``step/NAME`` and ``system/NAME`` (over steps) and ``epoch/NAME`` (over epochs); the settings
    are a session of the HParams dashboard.

    Args:
        folder: TensorBoard shows it as one run.
        params: Settings of the training.
        name: Of the training among others, e.g. ``sweep/t0003``.
    """

    def __init__(self, folder: Path, *, params: Mapping[str, Any], name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(EVENT_FILES):
            earlier.unlink(missing_ok=True)
        self._stream = (folder / f"events.out.tfevents.{time.time():.0f}.autodl").open("wb")
        self._write(file_version="brain.Event:2")
        if params:
            self._write(summary=_session(params, name))

    def __enter__(self) -> EventFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def step(self, row: Row) -> None:
        """Write the scalars of a step's row."""
        values = {f"{'system' if is_of_machine(k) else 'step'}/{k}": v for k, v in _scalars(row)}
        self._write(summary=_summary(values), step=int(row["step"]), wall_time=float(row["time"]))

    def epoch(self, row: Row) -> None:
        """Write the scalars of an epoch's row, over epochs."""
        values = {f"epoch/{k}": v for k, v in _scalars(row)}
        self._write(summary=_summary(values), step=int(row["epoch"]), wall_time=float(row["time"]))

    def flush(self) -> None:
        """Let readers see what was written."""
        self._stream.flush()

    def close(self) -> None:
        """End the file."""
        self._stream.close()

    def _write(self, *, wall_time: float | None = None, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time() if wall_time is None else wall_time, **fields)
        self._stream.write(_framed(event.SerializeToString()))


def write_events(folder: Path, *, params: Mapping[str, Any], name: str) -> EventFile:
    """Begin the event file of a training with the rows that are there already; the caller goes on with it."""
    events = EventFile(folder, params=params, name=name)
    for row in read_rows(folder / STEPS):
        events.step(row)
    for row in read_rows(folder / EPOCHS):
        events.epoch(row)
    events.flush()
    return events


def _scalars(row: Row) -> Iterable[tuple[str, float]]:
    """The numbers of a row; a list gives one for each place: ``recall/007``."""
    for name, value in row.items():
        if name in _COUNTERS:
            continue
        if isinstance(value, list):
            yield from ((f"{name}/{i:03d}", float(v)) for i, v in enumerate(value) if isinstance(v, int | float))
        elif isinstance(value, int | float):
            yield name, float(value)


def _summary(values: Mapping[str, float]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def _session(params: Mapping[str, Any], name: str) -> Any:
    """The start of a session as the HParams dashboard keeps it: in the metadata of a summary without a value."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.types_pb2 import DT_FLOAT
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    start = SessionStartInfo(group_name=name, start_time_secs=time.time())
    for key, value in params.items():
        if isinstance(value, bool):
            start.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            start.hparams[key].number_value = value
        else:
            start.hparams[key].string_value = str(value)
    plugin = SummaryMetadata.PluginData(
        plugin_name="hparams", content=HParamsPluginData(session_start_info=start).SerializeToString()
    )
    value = Summary.Value(
        tag="_hparams_/session_start_info",
        metadata=SummaryMetadata(plugin_data=plugin),
        tensor=TensorProto(dtype=DT_FLOAT),
    )
    return Summary(value=[value])


def _framed(data: bytes) -> bytes:
    """A record: length, its check sum, data, its check sum; all little-endian."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", _masked(length)), data, struct.pack("<I", _masked(data))))


def _masked(data: bytes) -> int:
    """CRC-32C, turned and shifted as the format of records wants it."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[int, ...]:
    """The 256 remainders of CRC-32C (Castagnoli's polynomial, reflected)."""

    def remainder(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(remainder(byte) for byte in range(256))
