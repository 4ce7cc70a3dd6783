"""What several test files need: tiny tasks, processes, and results shared between test workers."""
