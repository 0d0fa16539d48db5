"""Listening tests with people: what is fixed beforehand, what is played, who answers, and what stays on record.

listening/ledger.jsonl                 every test that was ever opened, every look, for ever (`ledger.py`)
listening/<test>/plan.json             what was fixed before the first answer (`plan.py`)
listening/<test>/key.json              which excerpt is what; never leaves the server (`items.py`)
listening/<test>/audio/<item>.wav      excerpts, alike in length, level, band, codec and size (`excerpts.py`)
listening/<test>/invitations.jsonl     hashes of the tokens that were given out (`invitations.py`)
listening/<test>/sessions/<who>.jsonl  what a listener heard and answered, line by line (`journal.py`)
"""
