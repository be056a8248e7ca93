"""`mcoe-client`: one module for each group of commands."""

from client.cli.main import app

__all__ = ["app"]
