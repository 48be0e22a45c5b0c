"""How good a model is on test patches: counts, baselines, figures, and the report."""
