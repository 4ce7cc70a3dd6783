"""The report on runs that learn from streams: no target, but what was lost and sent on the way."""
