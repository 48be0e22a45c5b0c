"""The expectations on per-patch statistics and their checkpoint: a table in, a verdict out."""
