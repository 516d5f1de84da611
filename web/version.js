// The pack's version, as in pyproject.toml; a saved graph names it.

export const VERSION = "0.1.0"
