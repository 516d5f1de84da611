"""The run folder: records in one SQLite file, latents and adapters as safetensors, images as PNG.

Everything recorded is complete on disk: files are written and renamed first, then their rows are committed in one
transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ..errors import UserError
from ..json_values import finite
from ..records import Candidate, Pair
from .files import atomic_path
from .schema import SCHEMA


def _plain(text: str) -> object:
    """The JSON value of a fact. Older runs may hold Infinity and NaN, which are no JSON: they become None."""
    return json.loads(text, parse_constant=lambda _: None)


class RunFolder:
    """Reads and writes one run. Sets of images are named, e.g. "round_0" or "evaluation_2".

    Raises UserError when the folder or its records cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path / "records.sqlite", timeout=30)
            with self._db:
                self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"run folder {self.path} cannot be opened: {error}. Choose a writable folder.") from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit everything or nothing. Raises UserError when the records cannot be written."""
        try:
            with self._db:
                yield self._db
        except sqlite3.DatabaseError as error:
            if "locked" in str(error):
                raise UserError(
                    f"the records in {self.path} are in use by another program: a run, a node or a viewer of this "
                    "folder. Wait until it has ended, or close it. Finished work is kept; resume to continue."
                ) from error
            raise UserError(
                f"cannot write records in {self.path}: {error}. Free disk space. Finished work is kept; resume to "
                "continue."
            ) from error

    def _write(self, statement: str, rows: Iterable[Sequence]) -> None:
        with self._transaction() as db:
            db.executemany(statement, rows)

    # --- facts: one JSON value per name ---

    def fact(self, name: str) -> object | None:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return _plain(row[0]) if row else None

    def set_fact(self, name: str, value: object) -> None:
        """Store a JSON value. A number that is NaN or infinite is stored as null, which `fact` gives back as None."""
        text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False)
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", [(name, text)])

    def facts(self, prefix: str) -> dict[str, object]:
        rows = self._db.execute(
            "SELECT name, value FROM facts WHERE substr(name, 1, ?) = ? ORDER BY name", (len(prefix), prefix)
        )
        return {name: _plain(value) for name, value in rows}

    # --- candidates ---

    def folder(self, set_name: str) -> Path:
        return self.path / set_name

    def image_path(self, set_name: str, position: int) -> Path:
        return self.folder(set_name) / "images" / f"{position:05d}.png"

    def _latent_path(self, set_name: str, chunk: int) -> Path:
        return self.folder(set_name) / "latents" / f"{chunk:05d}.safetensors"

    def add_chunk(
        self, set_name: str, candidates: Sequence[Candidate], latents: torch.Tensor, images: np.ndarray
    ) -> None:
        """Store one batch of candidates: latents [b, C, h, w], images uint8 [b, H, W, 3].

        What differs from a candidate of the model as loaded (LoRA strength, photo) is a row of the table "sources", and
        where a candidate of an earlier round comes from is one of the table "earlier".
        """
        from PIL import Image
        from safetensors.torch import save_file

        with atomic_path(self._latent_path(set_name, candidates[0].chunk)) as beside:
            save_file({"latents": latents.contiguous()}, beside)
        for candidate, pixels in zip(candidates, images, strict=True):
            with atomic_path(self.image_path(set_name, candidate.position)) as beside:
                Image.fromarray(pixels).save(beside, compress_level=1)
        other = [c for c in candidates if (c.strength, c.photo) != (1.0, None)]
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO candidates VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(set_name, c.position, c.prompt_index, c.prompt, c.seed, c.chunk, c.row) for c in candidates],
            )
            db.executemany(
                "INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)",
                [(set_name, c.position, c.strength, c.photo) for c in other],
            )
            db.executemany(
                "INSERT OR REPLACE INTO earlier VALUES (?, ?, ?, ?)",
                [(set_name, c.position, *c.earlier) for c in candidates if c.earlier is not None],
            )

    def candidates(self, set_name: str) -> list[Candidate]:
        rows = self._db.execute(
            "SELECT position, prompt_index, prompt, seed, chunk, row, coalesce(strength, 1.0), photo, from_set, "
            "from_position FROM candidates LEFT JOIN sources USING (set_name, position) "
            "LEFT JOIN earlier USING (set_name, position) WHERE set_name = ? ORDER BY position",
            (set_name,),
        )
        return [Candidate(*row[:8], None if row[8] is None else row[8:]) for row in rows]

    def has_candidates(self) -> bool:
        """Whether any candidate was drawn, in any set."""
        return self._db.execute("SELECT 1 FROM candidates LIMIT 1").fetchone() is not None

    def chunks(self, set_name: str) -> set[int]:
        return {r[0] for r in self._db.execute("SELECT DISTINCT chunk FROM candidates WHERE set_name = ?", (set_name,))}

    def forget_set(self, set_name: str) -> None:
        """Remove a set's records (candidates, scores, pairs); its files stay on disk."""
        with self._transaction() as db:
            for table in ("candidates", "sources", "earlier", "scores", "unscored", "pairs"):
                db.execute(f"DELETE FROM {table} WHERE set_name = ?", (set_name,))

    def latents(self, set_name: str, positions: Sequence[int] | None = None) -> torch.Tensor:
        """Latents of a whole set by position, or of the given positions, float32 [n, C, h, w].

        Raises UserError when a file is missing.
        """
        from safetensors.torch import load_file

        found = self.candidates(set_name)
        if positions is not None:
            by_position = {c.position: c for c in found}
            found = [by_position[p] for p in positions]
        paths = {c: self._latent_path(set_name, c) for c in sorted({c.chunk for c in found})}
        files = {c: load_file(self._there(path))["latents"] for c, path in paths.items()}
        return torch.stack([files[c.chunk][c.row] for c in found])

    def images(self, set_name: str, positions: Sequence[int] | None = None) -> np.ndarray:
        """Images of a set, or of the given positions, uint8 [n, H, W, 3]. Raises UserError when a file is missing."""
        wanted = [c.position for c in self.candidates(set_name)] if positions is None else positions
        return np.stack([self._image(set_name, p) for p in wanted])

    def _image(self, set_name: str, position: int) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.open(self.image_file(set_name, position)).convert("RGB"))

    def image_file(self, set_name: str, position: int) -> Path:
        """The file of a recorded image. Raises UserError when it is missing."""
        return self._there(self.image_path(set_name, position))

    @staticmethod
    def _there(path: Path) -> Path:
        """Return `path`, which the records name. Raises UserError when the file is missing."""
        if not path.is_file():
            raise UserError(
                f"{path} is recorded but missing. Put the file back, or start again in a new output folder."
            )
        return path

    # --- scores ---

    def add_scores(
        self, set_name: str, scorer: str, fingerprint: str, positions: Sequence[int], values: np.ndarray
    ) -> None:
        """Store the scores of these candidates, float [n], in one transaction.

        NaN: the scorer gives the picture no score. That is stored as such (table "unscored"), so it is not asked again.
        """
        rows = [(set_name, int(p), scorer, fingerprint, float(v)) for p, v in zip(positions, values, strict=True)]
        with self._transaction() as db:
            for table in ("scores", "unscored"):
                where = "set_name = ? AND position = ? AND scorer = ?"
                db.executemany(f"DELETE FROM {table} WHERE {where}", [row[:3] for row in rows])
            db.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", [r for r in rows if r[4] == r[4]])
            db.executemany("INSERT INTO unscored VALUES (?, ?, ?, ?)", [r[:4] for r in rows if r[4] != r[4]])

    def scores(self, set_name: str, scorer: str, fingerprint: str | None = None) -> dict[int, float]:
        """Stored scores by position, NaN where the scorer gave none; with a fingerprint, only those made under it."""
        given = (set_name, scorer)
        rows = self._db.execute(
            "SELECT position, value, fingerprint FROM scores WHERE set_name = ? AND scorer = ?", given
        ).fetchall()
        none = self._db.execute(
            "SELECT position, fingerprint FROM unscored WHERE set_name = ? AND scorer = ?", given
        ).fetchall()
        found = [*rows, *((position, float("nan"), mark) for position, mark in none)]
        return {p: v for p, v, mark in sorted(found, key=lambda row: row[0]) if fingerprint in (None, mark)}

    def score_marks(self, set_name: str, scorer: str) -> set[str]:
        """Fingerprints of the scorers that made the stored scores.

        There are two when rescoring by a changed scorer was interrupted.
        """
        return {
            row[0]
            for table in ("scores", "unscored")
            for row in self._db.execute(
                f"SELECT DISTINCT fingerprint FROM {table} WHERE set_name = ? AND scorer = ?", (set_name, scorer)
            )
        }

    def score_array(self, set_name: str, scorer: str) -> np.ndarray:
        """Scores by position, float64 [n]; NaN where the scorer gave none.

        Raises KeyError where a score is missing, UserError where two different scorers of that name made them.
        """
        if len(self.score_marks(set_name, scorer)) > 1:
            raise UserError(
                f"{set_name} in {self.path} has scores by two different scorers named {scorer!r}: score the set again."
            )
        kept = self.scores(set_name, scorer)
        return np.asarray([kept[c.position] for c in self.candidates(set_name)], np.float64)

    # --- pairs ---

    def set_pairs(self, set_name: str, pairs: Sequence[Pair]) -> None:
        """Replace all pairs of a set in one transaction."""
        with self._transaction() as db:
            db.execute("DELETE FROM pairs WHERE set_name = ?", (set_name,))
            db.executemany(
                "INSERT INTO pairs VALUES (?, ?, ?, ?, ?, ?)",
                [(set_name, i, p.winner, p.loser, p.d_fidelity, p.d_alignment) for i, p in enumerate(pairs)],
            )

    def pairs(self, set_name: str) -> list[Pair]:
        rows = self._db.execute(
            "SELECT winner, loser, d_fidelity, d_alignment FROM pairs WHERE set_name = ? ORDER BY number", (set_name,)
        )
        return [Pair(*row) for row in rows]

    def pair_lists(self) -> dict[str, int]:
        """Numbers of pairs by the names that they are stored under, the last stored last."""
        return dict(self._db.execute("SELECT set_name, COUNT(*) FROM pairs GROUP BY set_name ORDER BY MAX(rowid)"))

    # --- training records and states ---

    def add_training(self, round_index: int, records: Sequence[dict]) -> None:
        self._write(
            "INSERT OR REPLACE INTO training VALUES (?, ?, ?)",
            [(round_index, r["step"], json.dumps(r)) for r in records],
        )

    def training(self, round_index: int) -> list[dict]:
        rows = self._db.execute("SELECT record FROM training WHERE round = ? ORDER BY step", (round_index,))
        return [json.loads(r[0]) for r in rows]

    def state_path(self, name: str) -> Path:
        return self.path / "states" / f"{name}.safetensors"

    def save_state(self, name: str, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
        from safetensors.torch import save_file

        with atomic_path(self.state_path(name)) as beside:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, beside, metadata=metadata)

    def load_state(self, name: str) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
        """Tensors and metadata of a stored state, or None where there is none."""
        from safetensors import safe_open

        if not self.state_path(name).is_file():
            return None
        with safe_open(self.state_path(name), "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
