"""`dreambooth-dpo doctor`: whether the pack will work here, line by line, with the remedy for what will not.

What could fail to import, or crash, runs in a process of its own (launch.py): this package's own Python for the
diffusers backend, the ComfyUI's for the ComfyUI backend. The process that reports imports the standard library alone.
"""
