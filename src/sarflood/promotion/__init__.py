"""The gate, the registry, the model card, and promotion."""
