"""Builds the HTML page of a study from its catalog. Numbers are computed in SQL wherever SQL can compute them."""

from __future__ import annotations

from report.page import write_report

__all__ = ["write_report"]
