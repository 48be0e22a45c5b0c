"""Performance claims: each script measures a ratio against a peer or a limit in one run."""
