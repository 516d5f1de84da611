"""One run headless and in ComfyUI from one tiny checkpoint of each family: equal candidates, pairs and adapters."""
