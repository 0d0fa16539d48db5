"""The demo: music of its own making, a small base trained from seeds, and the whole lineage run over them."""
