"""Pages of the evaluated checkpoints: one for each, and one that compares all of them."""
