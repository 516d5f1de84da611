"""Implementations of the TextToImage protocol: comfyui/ on ComfyUI's objects, diffusers/ on diffusers pipelines."""
