"""Writes tables as Parquet files of the plainest kind, without pyarrow: required columns, PLAIN values, no compression.

Format: github.com/apache/parquet-format (parquet.thrift), its metadata in Thrift's compact protocol. Pictures are
compressed already, so the file is no larger than another writer's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = b"PAR1"
DOUBLE, BYTES = 5, 6
"""Parquet's physical types DOUBLE and BYTE_ARRAY."""
KINDS = {"bytes": BYTES, "text": BYTES, "number": DOUBLE}
_UTF8, _REQUIRED, _PLAIN, _RLE, _UNCOMPRESSED, _DATA_PAGE = 0, 0, 0, 3, 0, 0
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
"""Types of Thrift's compact protocol."""


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _whole(value: int) -> bytes:
    """A signed integer: zigzag, then varint."""
    return _varint(value << 1 if value >= 0 else (-value << 1) - 1)


def _binary(value: bytes) -> bytes:
    return _varint(len(value)) + value


def _list(kind: int, items: Sequence[bytes]) -> bytes:
    head = bytes([len(items) << 4 | kind]) if len(items) < 15 else bytes([0xF0 | kind]) + _varint(len(items))
    return head + b"".join(items)


def _struct(*fields: tuple[int, int, bytes]) -> bytes:
    """Fields as (number, type, value), their numbers rising."""
    found, last = b"", 0
    for number, kind, value in fields:
        found += bytes([(number - last) << 4 | kind]) + value
        last = number
    return found + b"\x00"


def _values(kind: str, values: Iterable[Any]) -> bytes:
    """The values of a page in PLAIN encoding."""
    if kind == "number":
        return b"".join(struct.pack("<d", value) for value in values)
    raw = (value.encode() if kind == "text" else value for value in values)
    return b"".join(struct.pack("<I", len(value)) + value for value in raw)


def _column(file: BinaryIO, name: str, kind: str, values: Sequence[Any]) -> tuple[bytes, int]:
    """Write a column of one row group as one page; returns its ColumnChunk and its size in bytes."""
    data, offset = _values(kind, values), file.tell()
    page = _struct(
        (1, _I32, _whole(len(values))), *((n, _I32, _whole(e)) for n, e in ((2, _PLAIN), (3, _RLE), (4, _RLE)))
    )
    size = _whole(len(data))
    header = _struct((1, _I32, _whole(_DATA_PAGE)), (2, _I32, size), (3, _I32, size), (5, _STRUCT, page))
    file.write(header)
    file.write(data)
    total = len(header) + len(data)
    about = _struct(
        (1, _I32, _whole(KINDS[kind])),
        (2, _LIST, _list(_I32, [_whole(_PLAIN)])),
        (3, _LIST, _list(_BINARY, [_binary(name.encode())])),
        (4, _I32, _whole(_UNCOMPRESSED)),
        (5, _I64, _whole(len(values))),
        (6, _I64, _whole(total)),
        (7, _I64, _whole(total)),
        (9, _I64, _whole(offset)),
    )
    return _struct((2, _I64, _whole(offset)), (3, _STRUCT, about)), total


def _schema(columns: dict[str, str]) -> bytes:
    root = _struct((4, _BINARY, _binary(b"schema")), (5, _I32, _whole(len(columns))))
    leaves = [
        _struct(
            (1, _I32, _whole(KINDS[kind])),
            (3, _I32, _whole(_REQUIRED)),
            (4, _BINARY, _binary(name.encode())),
            *([(6, _I32, _whole(_UTF8))] if kind == "text" else []),
        )
        for name, kind in columns.items()
    ]
    return _list(_STRUCT, [root, *leaves])


def write_parquet(path: Path, columns: dict[str, str], rows: Iterable[Sequence[Any]], at_once: int = 100) -> int:
    """Write rows (values in the order of `columns`) to a new file; returns their number.

    columns: "bytes", "text" or "number" (float64) by name. at_once: rows of a row group, which are held in memory.
    Raises FileExistsError where the file exists.
    """
    groups, count, left = [], 0, iter(rows)
    with path.open("xb") as file:
        file.write(MAGIC)
        while part := list(islice(left, at_once)):
            chunks = [
                _column(file, name, kind, [row[i] for row in part]) for i, (name, kind) in enumerate(columns.items())
            ]
            group = (1, _LIST, _list(_STRUCT, [chunk for chunk, _ in chunks]))
            size = sum(size for _, size in chunks)
            groups.append(_struct(group, (2, _I64, _whole(size)), (3, _I64, _whole(len(part)))))
            count += len(part)
        footer = _struct(
            (1, _I32, _whole(1)),
            (2, _LIST, _schema(columns)),
            (3, _I64, _whole(count)),
            (4, _LIST, _list(_STRUCT, groups)),
            (6, _BINARY, _binary(b"dreambooth_dpo")),
        )
        file.write(footer + struct.pack("<I", len(footer)) + MAGIC)
    return count
