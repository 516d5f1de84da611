"""Parquet files: byte for byte as worked out from the format's definition, and read back by another program."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreambooth_dpo.dpo_core.run.parquet import write_parquet

PAGE = bytes.fromhex("15 00 15 {s} 15 {s} 2c 15 02 15 00 15 06 15 06 00 00".format(s="0e"))
"""Page header: type 0, sizes 7 (zigzag 0e), data page header (field 5): 1 value, PLAIN, RLE, RLE."""


def test_a_file_of_one_value_byte_by_byte(tmp_path: Path):
    """One text column "a" with the value "x y"."""
    assert write_parquet(tmp_path / "t.parquet", {"a": "text"}, [("x y",)]) == 1
    data = b"\x03\x00\x00\x00x y"
    chunk = bytes.fromhex(
        "26 08"  # field 2, i64: offset 4
        "1c"  # field 3, struct: column metadata
        "15 0c"  # type BYTE_ARRAY (6)
        "19 15 00"  # encodings: list of 1 i32: PLAIN
        "19 18 01 61"  # path: list of 1 binary: "a"
        "15 00"  # codec: uncompressed
        "16 02"  # 1 value
        "16 30 16 30"  # 24 bytes, header and data
        "26 08"  # field 9: the page's offset
        "00 00"
    )
    footer = (
        bytes.fromhex(
            "15 02"  # version 1
            "19 2c"  # schema: list of 2 structs
            "48 06 73 63 68 65 6d 61 15 02 00"  # "schema", 1 child
            "15 0c 25 00 18 01 61 25 00 00"  # BYTE_ARRAY, required, "a", UTF8
            "16 02"  # 1 row
            "19 1c"  # 1 row group
            "19 1c"  # 1 column
        )
        + chunk
        + bytes.fromhex("16 30 16 02 00")
        + b"\x28\x0edreambooth_dpo\x00"
    )
    assert len(PAGE) + len(data) == 24
    whole = b"PAR1" + PAGE + data + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    assert (tmp_path / "t.parquet").read_bytes() == whole


def test_an_existing_file_is_not_overwritten(tmp_path: Path):
    (tmp_path / "t.parquet").write_text("mine")
    with pytest.raises(FileExistsError):
        write_parquet(tmp_path / "t.parquet", {"a": "text"}, [])
    assert (tmp_path / "t.parquet").read_text() == "mine"


def test_pyarrow_reads_all_rows(tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="an independent reader; not a dependency")
    rows = [(bytes([i]) * i, f"größe {i}", i / 4) for i in range(250)]
    write_parquet(tmp_path / "t.parquet", {"b": "bytes", "t": "text", "n": "number"}, iter(rows), at_once=40)
    table = parquet.read_table(tmp_path / "t.parquet")
    assert [tuple(row.values()) for row in table.to_pylist()] == rows
