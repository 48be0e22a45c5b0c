"""Flood maps of patches and of whole scenes: tiles, blending, files."""
