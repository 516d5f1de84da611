"""The config in short: the lines that must be edited, and nothing else."""

from __future__ import annotations

SHORT = """\
# Edit these lines; every other setting has a default (`dreambooth-dpo config` prints them all).
model:
  path: my-model          # diffusers folder: SD, SDXL, SD 3.5, Flux, Z-Image, ...
  lora: null              # your DreamBooth LoRA (.safetensors), or null
concept:
  identifier: sks         # the word that names your subject in prompts
  class_noun: dog         # what kind of thing it is
  references: photos      # folder of 3 to 5 photos
scorers: {reward: scorers/clip}  # open_clip folder
prompts: prompts.txt      # one prompt a line, with {identifier} and {class_noun}
output: runs/my-dog       # the run folder
"""
"""YAML that `run` takes; paths are relative to the file."""
