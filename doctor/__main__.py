"""`python <this folder>`: runs the doctor with the standard library only.

For installations without the command line's packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from argparse import ArgumentParser
from pathlib import Path


def main() -> int:
    """Run the doctor; return the exit status."""
    # Import by folder: nothing needs to be installed, and the pack's folder in custom_nodes may have any name.
    root = Path(__file__).resolve().parents[1]
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root / "doctor"]
    spec = importlib.util.spec_from_file_location(
        "dreambooth_dpo", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    sys.modules["dreambooth_dpo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["dreambooth_dpo"])
    options = importlib.import_module("dreambooth_dpo.doctor.options")
    parser = ArgumentParser(
        prog="doctor",
        description="Checks whether DreamBooth DPO will work here. Each line is ok, warning or failed, with a remedy.",
    )
    for name, default in vars(options.Options()).items():
        kind = (
            {"action": "store_true"}
            if default is False
            else {"default": default, "type": str if isinstance(default, str) else Path}
        )
        parser.add_argument("--" + name.replace("_", "-"), help=options.HELP[name], **kind)
    return importlib.import_module("dreambooth_dpo.doctor.run").run(options.Options(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
