"""Fuzz test of the doors: configs, prompts, photos, masks, strengths and LoRA files that users never should feed."""
