"""Work on many files: the one interface through which it goes, the pool of processes behind it, and threads for clips."""
