"""Sources: raw files, the licence ledger, and which files have rights; the vocabulary that describes them."""
