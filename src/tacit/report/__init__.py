"""Comparing runs: a table of what they needed, and a report in one HTML file.

    write_report([read_run(path) for path in folders], Path("report.html"), target=0.95)

The table needs nothing but the runs; the report needs plotly (``tacit[report]``).
"""

from tacit.report.data import Row, choose_target
from tacit.report.page import write_report
from tacit.report.tables import headings, table
from tacit.report.words import asked, finding

__all__ = ["Row", "asked", "choose_target", "finding", "headings", "table", "write_report"]
