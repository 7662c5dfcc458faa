"""Checks of a protocol's data before anything trains on it; `uv run python -m segstrat.data.audit`."""

from segstrat.data.audit.checks import audit
from segstrat.data.audit.report import AuditReport

__all__ = ["AuditReport", "audit"]
