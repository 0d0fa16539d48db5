"""Work on many files: one interface for jobs, the pool of processes behind it, and threads for clips."""
