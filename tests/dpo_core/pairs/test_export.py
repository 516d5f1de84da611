"""Export of pairs for other trainers, and the command for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import fails, succeeds
from PIL import Image

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.pairs.export import DATA_FILE, chosen_lists, export_pairs
from dreambooth_dpo.dpo_core.pairs.own import Own, use_own
from dreambooth_dpo.dpo_core.pairs.own_files import find_own_pairs
from dreambooth_dpo.dpo_core.records import Candidate, Pair
from dreambooth_dpo.dpo_core.run.folder import RunFolder


def add(run: RunFolder, set_name: str, pairs: list[Pair], name: str = "") -> None:
    """A set of four candidates of two prompts, whose pictures are as bright as their positions, and pairs of it."""
    members = [Candidate(i, i // 2, f"prompt {i // 2}", i, 0, i) for i in range(4)]
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    run.add_chunk(set_name, members, torch.zeros(4, 1, 1, 1), pixels)
    run.set_pairs(name or set_name, pairs)


@pytest.fixture
def run(tmp_path: Path):
    """A headless run of two rounds with one own pair, and drafts."""
    with RunFolder(tmp_path / "run") as opened:
        for name, pairs in (
            ("drafts_0", [Pair(0, 1, 1, 1)]),
            ("round_1", [Pair(2, 3, 1, 1)]),
            ("own_x", [Pair(0, 1, 0, 0)]),
        ):
            add(opened, name, pairs)
        add(opened, "round_0", [Pair(1, 0, 1, 1), Pair(3, 2, 1, 1)])
        use_own(opened, "round_1", Own("own_x", 1.0))
        yield opened


def test_folders_hold_pictures_and_captions_and_can_be_read_as_own_pairs(run: RunFolder, tmp_path: Path):
    out = tmp_path / "new" / "out"
    assert export_pairs(run, out, "folders") == (4, ["round_0", "round_1", "own_x"])
    assert sorted(p.name for p in (out / "winner").iterdir()) == sorted(
        f"{i:05d}.{e}" for i in range(4) for e in ("png", "txt")
    )
    found = find_own_pairs(out)
    assert [p.prompt for p in found.pairs] == ["prompt 0", "prompt 1", "prompt 1", "prompt 0"]
    bright = [[np.asarray(Image.open(f))[0, 0, 0] for f in (p.winner, p.loser)] for p in found.pairs]
    assert bright == [[1, 0], [3, 2], [2, 3], [0, 1]]


def test_the_data_set_holds_the_stored_files(run: RunFolder, tmp_path: Path):
    export_pairs(run, tmp_path / "out", "diffusers", ["round_1"])
    content = (tmp_path / "out" / DATA_FILE).read_bytes()
    for position in (2, 3):
        assert run.image_path("round_1", position).read_bytes() in content
    assert not list(tmp_path.glob("*.part"))


def test_pyarrow_reads_the_data_set(run: RunFolder, tmp_path: Path):
    export_pairs(run, tmp_path / "out", "diffusers", ["round_1"])
    parquet = pytest.importorskip("pyarrow.parquet", reason="an independent reader; not a dependency")
    (row,) = parquet.read_table(tmp_path / "out" / DATA_FILE).to_pylist()
    assert (row["label_0"], row["label_1"], row["caption"]) == (1.0, 0.0, "prompt 1")
    assert row["jpg_0"] == run.image_path("round_1", 2).read_bytes()


def test_of_a_nodes_run_the_last_list_is_exported(tmp_path: Path):
    with RunFolder(tmp_path / "run") as run:
        add(run, "candidates_a", [Pair(0, 1, 1, 1)], "candidates_a_pairs_b")
        run.set_pairs("candidates_a_pairs_b_edited_c", [Pair(1, 0, -1, -1)])
        add(run, "own_x", [Pair(2, 3, 0, 0)])
        assert chosen_lists(run) == ["candidates_a_pairs_b_edited_c"]
        use_own(run, "candidates_a_pairs_b_edited_c", Own("own_x", 1.0))
        count, _ = export_pairs(run, tmp_path / "out", "folders")
    assert count == 2
    assert np.asarray(Image.open(tmp_path / "out" / "winner" / "00000.png"))[0, 0, 0] == 1


def test_nothing_is_overwritten_and_wrong_names_are_refused(run: RunFolder, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty; nothing there is overwritten"):
        export_pairs(run, tmp_path / "full", "folders")
    with pytest.raises(UserError, match=r"has no pairs 'round_7'. It has: .*round_0 \(2\)"):
        export_pairs(run, tmp_path / "out", "folders", ["round_7"])
    with pytest.raises(UserError, match="format 'csv' is unknown: give diffusers or folders"):
        export_pairs(run, tmp_path / "out", "csv")
    (tmp_path / "out.part").mkdir()
    with pytest.raises(UserError, match="is left from an export that was interrupted"):
        export_pairs(run, tmp_path / "out", "folders")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"] and not (tmp_path / "out").exists()


def test_the_command(run: RunFolder, tmp_path: Path):
    (tmp_path / "out").mkdir()
    said = succeeds("export-pairs", run.path, "--out", tmp_path / "out", "--pairs", "round_0")
    assert said.startswith("2 pairs of round_0: ") and (tmp_path / "out" / DATA_FILE).is_file()
    assert "is not a run folder" in fails("export-pairs", tmp_path / "nothing", "--out", tmp_path / "more")
    with RunFolder(tmp_path / "empty"):
        pass
    assert "holds no pairs yet" in fails("export-pairs", tmp_path / "empty", "--out", tmp_path / "more")
