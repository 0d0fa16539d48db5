"""Everything that touches samples: opening files safely, measuring, mastering, encoding, comparing, listening.

Pure functions over arrays and single files, which know nothing of Dagster, of a store, of licences or of the
project's vocabulary. Nothing heavy is imported by this package itself; torch and librosa load inside `musicnn` and
`tempo` when they are first used.
"""
