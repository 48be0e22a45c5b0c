"""Retrain, gate and serve Sentinel-1 flood mapping models, event by event."""

from importlib.metadata import version

__version__ = version("sarflood")
