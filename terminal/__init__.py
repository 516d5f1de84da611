"""What the command line shows: progress, tables, the check before a run."""
