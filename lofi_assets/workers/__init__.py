"""Work on many tracks: the one seam through which it goes, and the pool of processes behind it."""
