"""Comparing runs: the table to a target accuracy, and a report in one HTML file.

    write_report([read_run(path) for path in folders], Path("report.html"), target=0.95)

The table needs nothing but the runs; the report needs plotly (``tacit[report]``).
"""

from tacit.report.data import HEADINGS, Row, choose_target, table
from tacit.report.page import write_report
from tacit.report.words import finding

__all__ = ["HEADINGS", "Row", "choose_target", "finding", "table", "write_report"]
