"""Everything that touches samples: opening files safely, measuring, mastering, encoding, comparing, listening.

Belongs here: pure functions over arrays and single files. Does not belong here: where files live, which tracks are
due, licences, tags in the project's vocabulary, and anything of Dagster. Nothing heavy is imported by this package
itself; torch and librosa load inside `musicnn` and `tempo` when they are first used.
"""
