"""Lyrics: the files of people, their language, their spelling for a model, and the tokens of it."""
