"""diffusers pipelines as a TextToImage."""
