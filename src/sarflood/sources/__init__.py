"""Where patches come from: the event manifest, one reader a source layout, simulated events."""
