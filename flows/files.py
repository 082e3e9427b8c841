"""Recorded telemetry on disk: what a file holds, whether it can be read at all, and its pieces in order.

CSV and JSON lines may be compressed with gzip. Parquet and Arrow hold blocks, or a wide table. Text is cut at line
ends, so a quoted field may not hold a line break. Where the class has signals with frequency bands, a wide table is cut
between two spectra, and never inside an hour that the clocks repeat, so that the size of a piece changes no result.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.signals import EquipmentClass
from features.telemetry import TelemetryError
from features.times import read_times
from features.wide import roles_of
from features.wide_csv import check_header, header_names
from features.wire import holds_blocks
from flows.cutting import LONGEST, Cutter, Lines, Moment, Table, cut

__all__ = ["READ_ERRORS", "Format", "InputError", "Piece", "Wire", "open_check", "pieces"]

Wire = Literal["blocks", "arrow", "jsonl", "csv", "table", "json", "senml", "senml-cbor", "cbor"]
Format = Literal["csv", "jsonl", "parquet", "arrow"]

CHUNK = 4_000_000
"""Bytes of text that are read at once."""
ROWS = 16_384
"""Rows of Parquet or Arrow that are handed on at once."""
HEAD = 65_536

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".txt": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
    ".arrow": "arrow", ".arrows": "arrow", ".ipc": "arrow", ".feather": "arrow",
}  # fmt: skip

READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException, ValueError, MemoryError)
"""What reading a damaged file may raise."""


class InputError(Exception):
    """A file that cannot be read; the message is one sentence that names it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file that can be decoded by itself.

    Attributes
    ----------
    wire, payload
        As in `flows.sources.Message`.
    readings
        How many readings it holds at most.
    position
        Where the next piece begins, for `pieces`.
    done
        Bytes of the file that have been read.
    first_us, last_us
        Event time of its first and last row; 0 where the pieces are not cut by time.
    """

    wire: Wire
    payload: Any
    readings: int
    position: int
    done: int
    first_us: int = 0
    last_us: int = 0


def open_check(path: Path, equipment: EquipmentClass | None) -> None:
    """Check that a file can be opened and is telemetry, before anything starts.

    Costs the reading of its first 64 kB, or of the footer of a Parquet file.

    Parameters
    ----------
    path
        The file.
    equipment
        The class of wide tables; None where the input holds blocks.

    Raises
    ------
    InputError
        In one sentence: it is missing, a folder, empty, damaged, or holds nothing that the class knows.
    """
    head = _head(path)
    try:
        match format_of(path, head):
            case "csv":
                line = head.partition(b"\n")[0]
                check_header(line, _needed(path, equipment))
            case "jsonl":
                _check_jsonl(path, head)
            case "parquet":
                with pq.ParquetFile(path) as file:
                    _check_schema(path, file.schema_arrow, equipment)
            case "arrow":
                with pa.OSFile(str(path)) as file:
                    _check_schema(path, _open_arrow(file).schema, equipment)
    except TelemetryError as error:
        raise InputError(f"{path}: {error}") from None
    except READ_ERRORS as error:
        kind = format_of(path, head)
        name = {"parquet": "a whole Parquet file", "arrow": "a whole Arrow file"}.get(kind, "a text file")
        raise InputError(f"{path}: this is not {name} ({sentence(error)})") from None


def pieces(
    path: Path, equipment: EquipmentClass | None, cutter: Cutter, position: int = 0, chunk: int = CHUNK
) -> Iterator[Piece]:
    """Yield a file's pieces in order.

    Parameters
    ----------
    path
        A file that `open_check` has let pass.
    equipment
        The class of wide tables.
    cutter
        Where pieces may end.
    position
        `Piece.position` of the last piece that needs no reading any more.
    chunk
        Bytes of text to read at once.

    Raises
    ------
    InputError, or one of READ_ERRORS
        If the file is damaged further on.
    """
    head = _head(path)
    match format_of(path, head):
        case "csv":
            yield from _csv_pieces(path, _needed(path, equipment), cutter, position, chunk)
        case "jsonl":
            # Lines of JSON hold whole blocks: only the pace cuts them.
            yield from _jsonl_pieces(path, Cutter(span_us=cutter.span_us), position, chunk)
        case "parquet":
            yield from _parquet_pieces(path, equipment, cutter, position)
        case "arrow":
            yield from _arrow_pieces(path, equipment, cutter, position)


def format_of(path: Path, head: bytes) -> Format:
    """Return what a file holds, by its first bytes, else by its name.

    Examples
    --------
    >>> format_of(Path("lift.csv.gz"), b"time,flow"), format_of(Path("lift"), b'{"asset": "a"}')
    ('csv', 'jsonl')
    """
    if head[:4] == b"PAR1":
        return "parquet"
    if head[:6] == b"ARROW1" or head[:4] == b"\xff\xff\xff\xff":
        return "arrow"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    for suffix in reversed([s for s in suffixes if s != ".gz"][-1:]):
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
    return "jsonl" if head.lstrip()[:1] == b"{" else "csv"


def sentence(error: BaseException) -> str:
    """Return the first line of an error, without a full stop."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ((text.splitlines() or [""])[0] or type(error).__name__)[:200].rstrip(". ")


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path}: this is a folder; give a file")
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
        if not path.is_file():
            raise InputError(f"{path}: this is not a regular file")
        file, raw = _open_text(path)
        with raw, file:
            head = file.read(HEAD)
    except READ_ERRORS as error:
        raise InputError(f"{path}: the file cannot be read ({sentence(error)})") from None
    if not head.strip():
        raise InputError(f"{path}: the file is empty")
    return head


def _open_text(path: Path) -> tuple[IO[bytes], IO[bytes]]:
    """Open a file that may be compressed; return it, and the file whose position tells how much has been read."""
    raw = path.open("rb")
    magic = raw.read(2)
    raw.seek(0)
    if magic != b"\x1f\x8b":
        return raw, raw
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw)), raw


def _needed(path: Path, equipment: EquipmentClass | None) -> EquipmentClass:
    if equipment is None:
        raise InputError(f"{path}: a wide table needs the class of its assets")
    return equipment


def _check_jsonl(path: Path, head: bytes) -> None:
    lines = [line for line in head.split(b"\n") if line.strip()]
    # The last line may be cut off, unless it is the only one.
    for line in lines[:-1] or lines:
        try:
            if isinstance(msgspec.json.decode(line), dict):
                return
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    if len(head) < HEAD or len(lines) > 1:
        raise InputError(f"{path}: no line is a JSON object")


def _check_schema(path: Path, schema: pa.Schema, equipment: EquipmentClass | None) -> None:
    if not holds_blocks(schema):
        roles_of(schema.names, _needed(path, equipment))


def _whole_lines(path: Path, file: IO[bytes], chunk: int) -> Iterator[bytes]:
    rest = b""
    while data := file.read(chunk):
        data = rest + data
        end = data.rfind(b"\n") + 1
        rest = data[end:]
        if len(rest) >= LONGEST:
            raise InputError(f"{path}: a line is longer than {LONGEST // 1_000_000} MB")
        if end:
            yield data[:end]
    if rest:
        yield rest


def _csv_pieces(path: Path, equipment: EquipmentClass, cutter: Cutter, position: int, chunk: int) -> Iterator[Piece]:
    separator = equipment.table.separator
    file, raw = _open_text(path)
    with raw, file:
        header = file.readline(LONGEST)
        names = header_names(header, separator)
        roles = roles_of(names, equipment)
        position = max(position, len(header))
        file.seek(position)

        def at(line: bytes) -> Moment | None:
            fields = line.split(separator.encode())
            if len(fields) != len(names):
                return None
            return _moment(fields[roles.time].decode(errors="replace").strip().strip('"'), equipment.time_zone)

        lines = (Lines(data, at) for data in _whole_lines(path, file, chunk))
        for piece, first_us, last_us in cut(lines, cutter):
            position += piece.nbytes
            readings = len(piece) * len(roles.signals)
            yield Piece("csv", header + piece.data, readings, position, raw.tell(), first_us, last_us)


def _jsonl_pieces(path: Path, cutter: Cutter, position: int, chunk: int) -> Iterator[Piece]:
    def at(line: bytes) -> Moment | None:
        try:
            record = msgspec.json.decode(line)
            return _moment(record.get("start", record.get("time")), None)
        except (msgspec.MsgspecError, AttributeError, ValueError, RecursionError):
            return None

    file, raw = _open_text(path)
    with raw, file:
        file.seek(position)
        lines = (Lines(data, at) for data in _whole_lines(path, file, chunk))
        for piece, first_us, last_us in cut(lines, cutter):
            position += piece.nbytes
            yield Piece("jsonl", piece.data.tobytes(), len(piece), position, raw.tell(), first_us, last_us)


def _moment(cell: Any, zone: str | None) -> Moment | None:
    if not isinstance(cell, str | int | float):
        return None
    times = read_times(pa.array([cell]), zone)
    return None if times.bad[0] or times.naive[0] else Moment(int(times.us[0]), bool(times.repeated[0]))


def _parquet_pieces(path: Path, equipment: EquipmentClass | None, cutter: Cutter, position: int) -> Iterator[Piece]:
    size = path.stat().st_size
    with pq.ParquetFile(path) as file:
        schema, total = file.schema_arrow, max(1, file.metadata.num_rows)
    names = ["asset", "signal"] if holds_blocks(schema) else []
    with pq.ParquetFile(path, read_dictionary=names) as file:

        def batches() -> Iterator[pa.RecordBatch]:
            row = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row + rows > position:
                    for batch in file.iter_batches(ROWS, row_groups=[group], use_threads=False):
                        yield batch.slice(max(0, position - row))
                        row += batch.num_rows
                else:
                    row += rows

        for piece in _batch_pieces(batches(), schema, equipment, cutter, position):
            yield replace(piece, done=size * piece.position // total)


def _arrow_pieces(path: Path, equipment: EquipmentClass | None, cutter: Cutter, position: int) -> Iterator[Piece]:
    with pa.OSFile(str(path)) as file:
        reader = _open_arrow(file)
        count = getattr(reader, "num_record_batches", None)

        def batches() -> Iterator[pa.RecordBatch]:
            row = 0
            for batch in reader if count is None else (reader.get_batch(number) for number in range(count)):
                batch.validate(full=True)
                for begin in range(0, batch.num_rows, ROWS):
                    some = batch.slice(begin, ROWS)
                    yield some.slice(max(0, position - row))
                    row += some.num_rows

        for piece in _batch_pieces(batches(), reader.schema, equipment, cutter, position):
            yield replace(piece, done=file.tell())


def _open_arrow(file: pa.NativeFile) -> Any:
    magic = file.read(6)
    file.seek(0)
    return pa.ipc.open_file(file) if magic == b"ARROW1" else pa.ipc.open_stream(file)


def _batch_pieces(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    equipment: EquipmentClass | None,
    cutter: Cutter,
    position: int,
) -> Iterator[Piece]:
    wide = not holds_blocks(schema)
    column, zone = ("start" if "start" in schema.names else "time"), None
    if equipment is not None and wide:
        column, zone = equipment.table.time, equipment.time_zone
    tables = (Table(batch, column, zone) for batch in batches if batch.num_rows)
    for piece, first_us, last_us in cut(tables, cutter if wide else Cutter(span_us=cutter.span_us)):
        batch = piece.batch
        position += len(piece)
        readings = batch.num_rows * (batch.num_columns - 1)
        if not wide:
            readings = len(batch.column("values").flatten()) if "values" in schema.names else batch.num_rows
        yield Piece("table" if wide else "arrow", batch, readings, position, 0, first_us, last_us)
