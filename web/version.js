// The pack's version, as in pyproject.toml; saved graphs record it.

export const VERSION = "0.2.0"
