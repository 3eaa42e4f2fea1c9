"""The version of Stratoscope, as records and pictures name it."""

__version__ = "0.1.0"
