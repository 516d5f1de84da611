"""Tests the run folder: records are complete or absent, also on a full disk, and concurrent use is reported."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from chunks import chunk
from loops import make_loop
from safetensors import SafetensorError

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.records import Pair
from dreambooth_dpo.dpo_core.run import files
from dreambooth_dpo.dpo_core.run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "läuft")


def test_what_is_written_reads_back(run: RunFolder) -> None:
    for number in (1, 0):
        run.add_chunk("round_0", *chunk(number))
    run.add_scores("round_0", "fidelity", "f", [0, 1, 2, 3], np.asarray([0.1, 0.2, 0.3, 0.4]))
    run.set_pairs("round_0", [Pair(1, 0, 0.5, 0.25)])
    run.add_training(0, [{"step": 1, "loss": 0.5}, {"step": 0, "loss": 0.7}])
    run.close()
    again = RunFolder(run.path)
    assert again.candidates("round_0") == [*chunk(0)[0], *chunk(1)[0]]
    assert again.latents("round_0")[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert again.images("round_0")[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert again.images("round_0", [2])[:, 0, 0, 0].tolist() == [2]
    assert again.score_array("round_0", "fidelity").tolist() == [0.1, 0.2, 0.3, 0.4]
    assert again.pairs("round_0") == [Pair(1, 0, 0.5, 0.25)]
    assert [r["loss"] for r in again.training(0)] == [0.7, 0.5]
    assert again.chunks("round_0") == {0, 1} and again.chunks("round_1") == set()


def test_facts_are_found_by_literal_prefix(run: RunFolder) -> None:
    for name in ("yield_0", "yieldx0", "YIELD_1", "yield_1"):
        run.set_fact(name, {"größe": name})
    assert run.facts("yield_") == {"yield_0": {"größe": "yield_0"}, "yield_1": {"größe": "yield_1"}}
    assert run.fact("none") is None


def test_scores_are_stored_under_their_fingerprint(run: RunFolder) -> None:
    run.add_scores("s", "fidelity", "old", [0, 1], np.asarray([0.1, 0.2]))
    run.add_scores("s", "fidelity", "new", [1], np.asarray([0.9]))
    assert run.scores("s", "fidelity", "old") == {0: 0.1}
    assert run.scores("s", "fidelity", "new") == {1: 0.9}
    assert run.scores("s", "fidelity") == {0: 0.1, 1: 0.9}


def test_a_folder_of_before_opens_and_takes_pictures_without_a_score(run: RunFolder) -> None:
    """A folder whose records have no table of pictures without a score."""
    run.add_scores("s", "fidelity_2", "f", [0, 1], np.asarray([0.1, 0.2]))
    run.close()
    with closing(sqlite3.connect(run.path / "records.sqlite")) as db, db:
        db.execute("DROP TABLE unscored")
    with RunFolder(run.path) as again:
        assert again.scores("s", "fidelity_2") == {0: 0.1, 1: 0.2}
        again.add_scores("s", "fidelity_2", "f", [1, 2], np.asarray([np.nan, 0.3]))
        found = again.scores("s", "fidelity_2", "f")
        assert list(found) == [0, 1, 2] and np.isnan(found.pop(1)) and found == {0: 0.1, 2: 0.3}
        again.add_scores("s", "fidelity_2", "f", [1], np.asarray([0.4]))
        assert again.scores("s", "fidelity_2")[1] == 0.4


def test_forgetting_a_set_leaves_the_others(run: RunFolder) -> None:
    for name in ("round_0", "round_1"):
        run.add_chunk(name, *chunk(0))
        run.add_scores(name, "fidelity", "f", [0, 1], np.zeros(2))
        run.set_pairs(name, [Pair(0, 1, 1.0, 1.0)])
    run.forget_set("round_0")
    assert (run.candidates("round_0"), run.scores("round_0", "fidelity"), run.pairs("round_0")) == ([], {}, [])
    assert len(run.candidates("round_1")) == 2 and run.pairs("round_1")


def test_states_keep_metadata_and_scalars(run: RunFolder) -> None:
    run.save_state("a", {"x": torch.arange(6.0).view(2, 3).T, "step": torch.tensor(3.0)}, {"next_step": "4"})
    tensors, metadata = run.load_state("a")
    assert torch.equal(tensors["x"], torch.arange(6.0).view(2, 3).T) and float(tensors["step"]) == 3
    assert metadata == {"next_step": "4"}
    assert run.load_state("b") is None


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_in_safetensors(*_: object, **__: object) -> None:
    """Raise what safetensors raises on a full disk, which is no OSError."""
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("where", ["rename", "safetensors"])
def test_full_disk_keeps_earlier_chunks_and_can_be_resumed(
    run: RunFolder, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.add_chunk("round_0", *chunk(0))
    with monkeypatch.context() as patch:
        if where == "rename":
            patch.setattr(files.os, "replace", full_disk)
        else:
            patch.setattr("safetensors.torch.save_file", full_disk_in_safetensors)
        with pytest.raises(UserError, match=r"No space left.*Free disk space"):
            run.add_chunk("round_0", *chunk(1))
        with pytest.raises(UserError, match="No space left"):
            run.save_state("adapter_1", {"x": torch.zeros(2)})
    assert run.chunks("round_0") == {0} and run.load_state("adapter_1") is None
    assert [p for p in run.path.rglob("*") if ".part" in p.name] == []
    run.add_chunk("round_0", *chunk(1))
    assert run.latents("round_0")[:, 0, 0, 0].tolist() == [0, 1, 2, 3]


def test_full_disk_while_writing_images_does_not_record_the_chunk(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.Image.save", full_disk)
        with pytest.raises(UserError, match=r"00000\.png.*No space left"):
            run.add_chunk("round_0", *chunk(0))
    assert run.candidates("round_0") == []


def test_full_database_is_reported_and_rolled_back(run: RunFolder) -> None:
    """SQLite's own "database or disk is full", provoked by a limit on its pages."""
    run.set_pairs("round_0", [Pair(0, 1, 1.0, 1.0)])
    pages = run._db.execute("PRAGMA page_count").fetchone()[0]
    run._db.execute(f"PRAGMA max_page_count = {pages}")
    many = [Pair(i, i + 1, 0.5, 0.5) for i in range(2000)]
    with pytest.raises(UserError, match=r"full.*Free disk space"):
        run.set_pairs("round_0", many)
    with pytest.raises(UserError, match=r"full.*Free disk space"):
        run.set_fact("large", "x" * 100_000)
    assert run.pairs("round_0") == [Pair(0, 1, 1.0, 1.0)] and run.fact("large") is None
    run._db.execute("PRAGMA max_page_count = 1000000")
    run.set_pairs("round_0", many)
    assert len(run.pairs("round_0")) == 2000


def test_partly_written_files_are_ignored(run: RunFolder) -> None:
    """As a kill leaves them: a temporary sibling, never renamed, never recorded."""
    run.add_chunk("round_0", *chunk(0))
    (run.folder("round_0") / "latents" / ".00001.0a1b2c3d.part.safetensors").write_bytes(b"half")
    (run.path / "states").mkdir()
    (run.path / "states" / ".adapter_1.0a1b2c3d.part.safetensors").write_bytes(b"half")
    again = RunFolder(run.path)
    assert again.chunks("round_0") == {0} and again.load_state("adapter_1") is None
    assert len(again.latents("round_0")) == 2


def test_missing_recorded_files_are_named(run: RunFolder) -> None:
    run.add_chunk("round_0", *chunk(0))
    run.image_path("round_0", 1).unlink()
    with pytest.raises(UserError, match=r"00001\.png is recorded but missing"):
        run.images("round_0")
    (run.folder("round_0") / "latents" / "00000.safetensors").unlink()
    with pytest.raises(UserError, match=r"00000\.safetensors is recorded but missing"):
        run.latents("round_0")


def test_path_that_cannot_be_a_run_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be opened"):
        RunFolder(tmp_path / "file")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "records.sqlite").write_text("not a database" * 100, encoding="utf-8")
    with pytest.raises(UserError, match="cannot be opened"):
        RunFolder(tmp_path / "broken")


def test_an_error_inside_a_transaction_rolls_back_and_keeps_its_type(run: RunFolder) -> None:
    run.set_pairs("round_0", [Pair(0, 1, 1.0, 1.0)])
    with pytest.raises(ZeroDivisionError), run._transaction() as db:
        db.execute("DELETE FROM pairs")
        raise ZeroDivisionError
    assert len(run.pairs("round_0")) == 1


# --- whose run it is ---


def test_locked_database_is_reported_as_in_use(run: RunFolder) -> None:
    other = sqlite3.connect(run.path / "records.sqlite")
    other.execute("BEGIN EXCLUSIVE")
    run._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(UserError, match="in use by another program.*Wait until it has ended"):
        run.set_fact("a", 1)
    other.rollback()
    run.set_fact("a", 1)
    other.close()


def test_files_are_flushed_before_a_row_names_them(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of a batch, and its name in its folder, is flushed before the records of the batch are committed."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("which file a handle is of can be read on Linux alone")
    synced, fsync = [], os.fsync

    def counted(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", counted)
    begin = run._transaction
    monkeypatch.setattr(run, "_transaction", lambda: (synced.append("rows"), begin())[1])
    run.add_chunk("round_0", *chunk(0))
    assert synced[-1] == "rows" and "rows" not in synced[:-1]
    files = [Path(p) for p in synced[:-1]]
    assert {p.suffix for p in files} == {".safetensors", ".png", ""}, "latents, pictures and their folders"
    assert len([p for p in files if p.suffix == ".png"]) == len(list((run.folder("round_0") / "images").iterdir()))


def test_two_connections_do_not_lose_each_others_records(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.set_fact("a", 1)
    second.set_fact("b", 2)
    assert (first.fact("b"), second.fact("a")) == (2, 1)


def test_loop_reports_a_full_disk_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills while the third file of the first round is renamed; the same call then continues."""
    replace, renamed = os.replace, []

    def failing(source: Path, target: Path) -> None:
        if "round_0" in str(target) and len(renamed) >= 3:
            full_disk()
        if "round_0" in str(target):
            renamed.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", failing)
        with pytest.raises(UserError, match="No space left"):
            make_loop(tmp_path / "run").go()
    loop = make_loop(tmp_path / "run")
    before = loop.run.candidates("evaluation_0")
    assert len(before) == 6 and loop.run.fact("rounds") is None
    assert loop.go() == 2
    # The start is not drawn again: 1 or 2 batches of the interrupted round, 2 of each later evaluation, 3 of round 1.
    assert loop.run.candidates("evaluation_0") == before and len(loop.model.batches) <= 3 + 2 + 3 + 2


def test_locked_database_is_a_user_error(run: RunFolder) -> None:
    other = sqlite3.connect(run.path / "records.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    run._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(UserError, match="locked"):
        run.set_fact("a", 1)
    other.execute("ROLLBACK")
    run.set_fact("a", 1)
    assert run.fact("a") == 1
