"""The read-only page server: what people are meant to open of the data root and of `docs/`."""
