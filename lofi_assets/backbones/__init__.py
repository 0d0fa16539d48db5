"""Model families that can be trained, a folder each."""
