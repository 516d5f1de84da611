"""Which architectures of ComfyUI draw, train and save a LoRA with this pack, from a run on tiny random models."""
