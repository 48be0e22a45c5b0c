"""What all patches have in common: their edge in pixels, and the codes of their masks."""

from __future__ import annotations

PATCH = 256
DRY, WET, UNKNOWN = 0, 1, 255
