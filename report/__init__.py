"""Report: a study's page, made from the catalog alone. Computes nothing that a query could."""

from __future__ import annotations

from report.page import write_report

__all__ = ["write_report"]
