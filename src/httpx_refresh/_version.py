"""The version, which the build reads from here."""

__version__ = "0.2.0"
"""The version of this package, such as "0.2.0"."""
