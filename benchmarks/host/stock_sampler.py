"""Sample Candidates beside ComfyUI's own sampling nodes, on the native toybox."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path


def sampling_cost(batch: int, batches: int, steps: int, turns: int) -> dict:
    """Seconds of both sides on `batches` batches of toybox pictures, and the ratio stock / ours (above 1: ours is
    faster).
    """
    import torch

    import nodes as stock

    from ...toybox.native import native_toybox
    from .toy_candidates import PROMPTS, draw

    torch.set_num_threads(1)
    model, clip, vae = toybox = native_toybox()
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        saver = stock.SaveImage()
        saver.output_dir = folder
        for turn in range(turns):
            begun = time.perf_counter()
            text = stock.CLIPTextEncode().encode(clip, PROMPTS[0])[0]
            for i in range(batches):
                empty = stock.EmptyLatentImage().generate(128, 128, batch)[
                    0
                ]  # 64 pixels: the toybox's VAE halves twice
                seed = turn * batches + i
                drawn = stock.common_ksampler(model, seed, steps, 1.0, "dpmpp_2m", "normal", text, text, empty)[0]
                saver.save_images(stock.VAEDecode().decode(vae, drawn)[0], "stock")
            middle = time.perf_counter()
            draw(Path(folder) / "run", toybox, batch * batches // len(PROMPTS), steps, batch_size=batch, seed=turn)
            rows.append((middle - begun, time.perf_counter() - middle))
    ratios = [stock_s / ours_s for stock_s, ours_s in rows]
    stock_s, ours_s = (statistics.median(column) for column in zip(*rows, strict=True))
    return {
        "pictures": batch * batches,
        "batch": batch,
        "steps": steps,
        "turns": turns,
        "stock_s": stock_s,
        "ours_s": ours_s,
        "ratio_stock_to_ours": statistics.median(ratios),
        "ratios": ratios,
    }
