"""Checks of a protocol's data before anything trains on it; `uv run python -m segstrat.data.audit`."""

from segstrat.data.audit.checks import AuditReport, audit

__all__ = ["AuditReport", "audit"]
