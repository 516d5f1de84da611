"""`dreambooth-dpo doctor`: checks whether the pack will work here, with a remedy for each problem.

Checks that could fail to import, or crash, run in processes of their own (launch.py): in this package's Python for the
diffusers backend, in ComfyUI's Python for the ComfyUI backend. The reporting process imports only the standard library.
"""
