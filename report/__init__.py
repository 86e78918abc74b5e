"""Report: the page of a study, made from the catalog alone. All that SQL can compute is computed in queries."""

from __future__ import annotations

from report.page import write_report

__all__ = ["write_report"]
