"""The parts of ``benchmarks/link.py``: links, models, methods, the processes that train."""
