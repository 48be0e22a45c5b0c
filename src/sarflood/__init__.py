"""Retrain, gate and serve Sentinel-1 flood mapping models, event by event."""

__version__ = "0.1.0"
