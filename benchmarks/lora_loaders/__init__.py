"""LoRA files through the loaders of ComfyUI and diffusers, for each family of models."""
