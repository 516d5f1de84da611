"""The start notes of the example workflows: what to press, which files, and what comes next. Markdown."""

from __future__ import annotations

TOY_NOTE = """# Start here: press Run
**A few minutes on a CPU.** Nothing is downloaded.

## One round, one node per stage
A tiny model learns a subject (here a robot) from five photos. Then:
1. candidates are sampled for every prompt,
2. each is scored for **fidelity** (does it show the photos' subject?) and **alignment** (does it follow the prompt?),
3. better/worse pairs are built from both scores by a rule,
4. a LoRA is trained on the pairs,
5. and measured on held-out prompts, which training never saw.

Change the rule or its weight and run again: no candidate is sampled again.

**Then your own subject:** the blueprint *Improve my LoRA* of the node library, or Browse Templates, *dreambooth_dpo*,
the template of your model (SD 1.5, SDXL, Flux.1, ...); choose your LoRA and drop your photos."""
ROUNDS_NOTE = """# Start here: press Run
**Several minutes on a CPU.** Nothing is downloaded.

## Several rounds
Each round samples fresh candidates with the model trained so far, and measures the result on held-out prompts. The
round with the highest lower confidence bound is kept (or the original, if no round's bound is above zero). The loop
stops early when rounds no longer improve.

Set *rounds* one higher and run again: earlier rounds are not repeated.

**Your own subject:** open the template of your model (Browse Templates, *dreambooth_dpo*), choose your LoRA and drop
your photos; *DPO Rounds* takes the same links there."""
INSPECT_NOTE = """# Start here
**A few minutes on a CPU**, and your own decisions. Nothing is downloaded.

## Review the pairs yourself
1. Select *Inspect Pairs* and press the small **Run** above it: the graph runs up to that node.
2. Review the pairs, closest decisions first: **K** keep, **S** swap, **R** reject, arrow keys for the next pair.
3. Press the large **Run**: training uses the pairs after your decisions. Nothing is sampled or scored again."""
DRAFTS_NOTE = """# Start here: press Run
**A few minutes on a CPU.** Nothing is downloaded.

## Draft many, finish few
Sixteen candidates per prompt are **drafted** in 4 steps, scored and paired. Only drafts that are in pairs are
**finished** in 12 steps, from the same noise; the others would not have been used. The finished candidates are scored
and paired again, and training uses these pairs.

*Pairs in words* shows how well the drafts' scores predicted those of the finished candidates. In DPO Rounds, drafts are
a single widget: *draft_steps*."""
COMPARE_NOTE = """# Start here: press Run
**Several minutes on a CPU.** Nothing is downloaded.

## Which epoch is best?
*Toybox Epochs* stands for your trainer: it writes twelve epochs of one LoRA into `models/loras/dreambooth_dpo`, from
briefly trained to overtrained. *Compare LoRAs* draws the same held-out prompts with each of them and without a LoRA,
scores **fidelity** and **alignment**, and ranks them. It says what the prompts cannot tell apart.

With your own files, delete *Toybox Epochs* and write into *loras*, one per line:

    my_subject-*.safetensors
    other_subject.safetensors:0.8

A file that joins later is the only one that is drawn."""
USER_NOTE = """# Start here
Choose your files, then press **Run**.
1. *Load Checkpoint*, *Load LoRA*: your checkpoint, and the LoRA of your subject.
2. Drop photos of the subject onto *Subject Photos*; enter *identifier* and *class noun* as in training.
3. *Scorer that trains*, *Judge that never trains*: two models, installed once.

## Files
{files}
- `models/loras/`: your LoRA
{scorers}

## Further
If you can, drop masks too (`a_mask.png` beside `a.png`), or cut-outs: then fidelity does not reward the place of the
photos.
For more rounds take *DPO Rounds*, or the blueprint *Improve my LoRA* of the node library."""
SD15_FILES = """- `models/checkpoints/v1-5-pruned-emaonly-fp16.safetensors`: SD 1.5 (CreativeML Open RAIL-M;
  huggingface.co: Comfy-Org/stable-diffusion-v1-5-archive), or any SD 1.5 checkpoint"""
SDXL_FILES = """- `models/checkpoints/sd_xl_base_1.0.safetensors`: SDXL 1.0 (CreativeML Open RAIL++-M; huggingface.co:
  stabilityai/stable-diffusion-xl-base-1.0), or the checkpoint that your LoRA was trained on: Illustrious, NoobAI, Pony
  or another SDXL (each under its own licence)"""
