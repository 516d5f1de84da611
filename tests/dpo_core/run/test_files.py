"""Tests that files are complete or absent, and that seeds depend on their place alone."""

from __future__ import annotations

import errno
import json
import os
import signal
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreambooth_dpo.dpo_core.errors import UserError
from dreambooth_dpo.dpo_core.run.files import atomic_path, write_json
from dreambooth_dpo.dpo_core.seeds import derive_seed, generator


@contextmanager
def small_disk():
    """Limit the files that this process writes to 1000 bytes, so that a write fails as on a full disk."""
    resource = pytest.importorskip("resource", reason="file size limits are a matter of POSIX systems")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "new folder – 犬" / "a.txt"
    with atomic_path(path) as beside:
        assert beside.parent == path.parent and beside.suffix == ".txt"
        beside.write_text("ganz – 犬", encoding="utf-8")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "ganz – 犬" and list(path.parent.iterdir()) == [path]


def test_an_older_file_is_replaced(tmp_path):
    for text in ("old", "new"):
        with atomic_path(tmp_path / "a.txt") as beside:
            beside.write_text(text, encoding="utf-8")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_the_older_file_and_leaves_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(error), atomic_path(path) as beside:
        beside.write_text("half", encoding="utf-8")
        raise error
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_use_different_temporary_files(tmp_path):
    with atomic_path(tmp_path / "a.txt") as one, atomic_path(tmp_path / "a.txt") as two:
        assert one != two
        one.write_text("one", encoding="utf-8")
        two.write_text("two", encoding="utf-8")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "one" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_a_clear_error(tmp_path):
    with (
        pytest.raises(UserError, match=r"cannot write .*a\.txt: No space left on device\. Free disk space"),
        atomic_path(tmp_path / "a.txt"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_disk_full_while_writing_tensors(tmp_path):
    """safetensors raises an exception of its own there, not OSError."""
    from safetensors.torch import save_file

    with (
        small_disk(),
        pytest.raises(UserError, match=r"cannot write .*a\.safetensors.*File too large"),
        atomic_path(tmp_path / "a.safetensors") as beside,
    ):
        save_file({"a": torch.zeros(1000)}, beside)
    assert not (tmp_path / "a.safetensors").exists()


def test_disk_full_while_writing_text(tmp_path):
    with small_disk(), pytest.raises(UserError, match=r"cannot write .*a\.json: File too large"):
        write_json(tmp_path / "a.json", list(range(1000)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with (
        pytest.raises(UserError, match="cannot write .*choose another output folder"),
        atomic_path(tmp_path / "file" / "a.txt"),
    ):
        raise AssertionError("the body must not run")


def test_a_target_that_is_a_folder_is_a_clear_error(tmp_path):
    (tmp_path / "a.txt" / "inner").mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write"), atomic_path(tmp_path / "a.txt") as beside:
        beside.write_text("x", encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_user_error_inside_is_not_wrapped(tmp_path):
    with pytest.raises(UserError, match="^mine$"), atomic_path(tmp_path / "a.txt"):
        raise UserError("mine")


def test_json_is_readable_utf8(tmp_path):
    value = {"prompt": "Hündchen – 犬", "list": [1, 2.5, None, True]}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value and "Hündchen – 犬" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_with_nan_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0o027, 0o640)])
def test_files_have_the_permissions_of_the_umask(tmp_path, mask, mode):
    """safetensors creates files that only their owner can read, so another user's ComfyUI could not load a LoRA."""
    from safetensors.torch import save_file

    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "a.safetensors") as beside:
            save_file({"a": torch.zeros(2)}, beside)
        write_json(tmp_path / "a.json", [1])
        assert os.umask(mask) == mask, "the process's own umask stays"
    finally:
        os.umask(before)
    assert [(tmp_path / f"a.{end}").stat().st_mode & 0o777 for end in ("safetensors", "json")] == [mode] * 2


def test_the_umask_is_found_without_proc(monkeypatch):
    """As on macOS, where no file tells it."""
    from dreambooth_dpo.dpo_core.run import files

    def absent(*_: object, **__: object):
        raise FileNotFoundError

    expected = files._umask()
    monkeypatch.setattr("builtins.open", absent)
    assert files._umask() == expected


# --- seeds ---


def test_seeds_do_not_change_between_versions():
    """Stored runs are resumed with these seeds, so they must never change."""
    assert [derive_seed(0), derive_seed(0, 1, 2), derive_seed(7, 77, 1)] == [821328062, 1736571394, 446711254]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4))
def test_seed_is_31_bits_and_deterministic(parts):
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**31 and seed == derive_seed(*parts)
    assert torch.equal(
        torch.rand(3, generator=generator(*parts)), torch.rand(3, generator=torch.Generator().manual_seed(seed))
    )


def test_neighbouring_places_have_different_seeds():
    places = [(s, salt, i) for s in range(3) for salt in range(1, 5) for i in range(200)]
    assert len({derive_seed(*p) for p in places}) == len(places)
    assert derive_seed(1, 2) != derive_seed(2, 1)
