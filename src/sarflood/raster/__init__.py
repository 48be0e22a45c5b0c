"""Rasters: safe opening, windows, dB, COG writing, polygons and areas."""
