"""Work on many tracks: the one interface through which it goes, and the pool of processes behind it."""
