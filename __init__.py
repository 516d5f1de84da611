"""ComfyUI's door into the pack, and the root of the Python package `dreambooth_dpo`.

Importing it has no side effects and loads nothing: ComfyUI imports every pack at start-up, under a module name of its own
making, and pytest imports it with no package around it. So whatever this file needs from the folders beside it is to be
imported inside the function that uses it.
"""
