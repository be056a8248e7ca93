"""The operator's dashboard: pages, a read-only JSON API and metrics over the registry, on loopback behind a token."""

from __future__ import annotations

from server.dashboard.app import dashboard_app
from server.dashboard.serve import serve_dashboard

__all__ = ["dashboard_app", "serve_dashboard"]
