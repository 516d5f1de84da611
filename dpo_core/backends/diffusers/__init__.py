"""diffusers backend: the TextToImage protocol on diffusers pipelines."""
