"""A recorded checkpoint made again and compared bit for bit."""
