"""Speed and quality measurements: each module is a command that writes JSON."""
