"""DuraGraph's control plane: a thin HTTP layer over the functions in sql/."""

__version__ = "0.1.0"
