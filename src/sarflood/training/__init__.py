"""From labelled patches to a fitted network with a calibrated threshold."""
