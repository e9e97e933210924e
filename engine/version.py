"""The program's version, as in pyproject.toml (a test holds them together)."""

__version__ = "0.1.0"
