"""A simulated landscape: rivers in their valleys, relief, land cover, and the flood on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sarflood.sources.noise import Field, Positions, hash_grid, smoothstep, uniform, value_noise

PIXEL_M = 10.0
_CALIBRATION_SIDE = 384  # points a side at which the flood level is set
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Terrain:
    """The ground in a window.

    Attributes:
        height_m: (H, W) metres above the nearest river, 0 at its bank.
        slope: (H, W) rise in metres per metre along the row, towards larger columns.
        river: (H, W) permanent water.
        distance: (H, W) distance from the nearest main river in pixels.
    """

    height_m: Field
    slope: Field
    river: Flags
    distance: Field


@dataclass(frozen=True)
class Cover:
    """What lies on the ground in a window: (H, W) each.

    Attributes:
        parcel: One random number, 0 to 1, a field of the farmland.
        change: Another one, for what grew or was ploughed between the dates.
        forest: Trees; flooded ones turn bright.
        wet_field: Fields that rain has made smooth and dark, though they are not flooded.
        built: Houses.
    """

    parcel: Field
    change: Field
    forest: Flags
    wet_field: Flags
    built: Flags


@dataclass(frozen=True)
class Landscape:
    """A place that is drawn by its seed; rows and columns are counted from the scene's corner.

    Args:
        seed: Another seed gives another place and another flood.
        size: Pixels a side. A main river passes near the middle.
    """

    seed: int
    size: int

    @cached_property
    def _draw(self) -> dict[str, float]:
        """The character of the place, drawn once."""
        low_high = {
            "angle": (0.0, np.pi),
            "spacing": (520.0, 800.0),  # pixels between main rivers
            "width": (3.0, 8.0),  # half the width of a main river, pixels
            "meander": (60.0, 130.0),  # pixels aside
            "rise": (18.0, 40.0),  # metres from a river to its divide
            "hills": (80.0, 340.0),  # metres of relief at the divides
            "forest": (0.15, 0.45),  # noise above which there is forest
            "parcel": (22.0, 42.0),  # pixels a field
            "flooded": (0.10, 0.18),  # share of the scene
        }
        draw = np.random.default_rng(self.seed)
        return {name: float(draw.uniform(*range_)) for name, range_ in low_high.items()}

    @cached_property
    def flood_level_m(self) -> float:
        """Height above the rivers up to which the land is flooded.

        Set at points spread over the scene, so that the seed's share of it is flooded.
        """
        points = (np.arange(_CALIBRATION_SIDE) + 0.5) * (self.size / _CALIBRATION_SIDE)
        ground = self.terrain(points, points)
        wanted = self._draw["flooded"] + float(ground.river.mean())
        height = np.where(ground.river, -np.inf, self._wetted_height(points, points, ground))
        return float(np.quantile(height, wanted, method="nearest"))

    def terrain(self, rows: Positions, cols: Positions) -> Terrain:
        """Evaluate the ground at every crossing of (H,) rows and (W,) columns."""
        ahead = np.append(cols, cols[-1] + 1)
        distance, bank, valley = self._rivers(rows, ahead)
        ridges = 1 - 1.6 * abs(self._noise(rows, ahead, 10, 260, 3))
        hills = ridges * smoothstep(distance, 60.0, 0.5 * self._draw["spacing"])
        highland = smoothstep(self._noise(rows, ahead, 11, 900), -0.25, 0.6)
        height = valley + np.float32(self._draw["hills"]) * hills * highland
        slope = (height[:, 1:] - height[:, :-1]) * np.float32(1 / PIXEL_M)
        return Terrain(height[:, :-1], slope, bank[:, :-1] < 0, distance[:, :-1])

    def cover(self, rows: Positions, cols: Positions) -> Cover:
        """Evaluate the land cover at every crossing of (H,) rows and (W,) columns."""
        parcels = self._parcels(rows, cols)
        change, kind = uniform(parcels << np.uint64(20)), uniform(parcels << np.uint64(40))
        woods = self._noise(rows, cols, 20, 170, 4)
        rain = self._noise(rows, cols, 21, 420, 2)
        built = self._noise(rows, cols, 22, 60, 3)
        forest = woods > self._draw["forest"]
        return Cover(
            parcel=uniform(parcels),
            change=change,
            forest=forest,
            wet_field=(kind < 0.10) & (rain > -0.1) & ~forest,
            built=(built > 0.6) & (self._noise(rows, cols, 24, 4) > -0.15),
        )

    def flooded(self, rows: Positions, cols: Positions, ground: Terrain) -> Flags:
        """Say where the land is newly flooded: low above the river, and no river itself."""
        height = self._wetted_height(rows, cols, ground)
        return (height < self.flood_level_m) & ~ground.river

    def wind(self, rows: Positions, cols: Positions, date: int) -> Field:
        """Return how much wind would roughen water on a date, 0 to 1, over (H, W)."""
        return smoothstep(self._noise(rows, cols, 30 + date, 110, 3), 0.12, 0.42)

    def outside_swath(self, rows: Positions, cols: Positions) -> Flags:
        """Say where the swath ends: beyond a slanted edge in a corner of the scene, 3 % of it."""
        down, right = rows[:, None] / self.size, cols / self.size
        if self.seed % 2:
            right = 1 - right
        outside: Flags = down / 0.5 + right / 0.12 < 1
        return outside

    def _noise(
        self, rows: Positions, cols: Positions, layer: int, cell: float, octaves: int = 1
    ) -> Field:
        return value_noise(rows, cols, self.seed * 1_000_003 + layer * 104_729, cell, octaves)

    def _wetted_height(self, rows: Positions, cols: Positions, ground: Terrain) -> Field:
        """Add levees, ditches and old channels, which fray the edge of the flood, to the height."""
        return ground.height_m + 2.4 * self._noise(rows, cols, 12, 70, 4)

    def _rivers(self, rows: Positions, cols: Positions) -> tuple[Field, Field, Field]:
        """Return distance from the main river, distance from any bank, and height of the valleys.

        Main rivers follow the evenly spaced lines of a plane that is turned and bent by noise;
        tributaries join each from both sides, downstream, and end before the divide.
        """
        draw, spacing = self._draw, np.float32(self._draw["spacing"])
        across, along = self._bent(rows, cols)
        river = np.rint(across / spacing)
        aside = across - river * spacing
        distance = abs(aside)
        # Each side of each river has tributaries of its own.
        side = (2 * river + (aside > 0)).astype(np.int64)
        shift = uniform(hash_grid(side, np.zeros(1, np.int64), self.seed + 5))
        step = spacing * np.float32(0.55)
        bent_along = (along - np.float32(0.7) * distance) / step + shift
        beside = abs(bent_along - np.rint(bent_along)) * step
        narrowing = np.float32(0.55 * draw["width"]) * (1 - distance / (np.float32(0.42) * spacing))
        bank = np.minimum(distance - np.float32(draw["width"]), beside - narrowing)
        divide = np.float32(0.5) * spacing
        main_valley = self._valley(distance / divide)
        side_valley = self._valley(beside / divide) + np.float32(0.035) * distance
        return distance, bank, np.minimum(main_valley, side_valley)

    def _bent(self, rows: Positions, cols: Positions) -> tuple[Field, Field]:
        """Return coordinates across and along the main rivers, (H, W) each, 0 at the middle."""
        angle, meander = self._draw["angle"], np.float32(self._draw["meander"])
        down = (rows[:, None] - self.size / 2).astype(np.float32)
        right = (cols - self.size / 2).astype(np.float32)
        across = right * np.float32(np.cos(angle)) + down * np.float32(np.sin(angle))
        along = down * np.float32(np.cos(angle)) - right * np.float32(np.sin(angle))
        across = across + 2 * meander * self._noise(rows, cols, 1, 620)
        across += meander * self._noise(rows, cols, 2, 190, 3)
        along = along + meander * self._noise(rows, cols, 3, 150, 3)
        return across.astype(np.float32), along.astype(np.float32)

    def _valley(self, part: Field) -> Field:
        """Return the height of a valley side in metres at a part, 0 to 1, of the way up."""
        height: Field = np.float32(self._draw["rise"]) * part * np.sqrt(part)
        return height

    def _parcels(self, rows: Positions, cols: Positions) -> NDArray[np.uint64]:
        """Return one hash for each field: rectangles, turned as the land is."""
        angle, side = self._draw["angle"] + 0.4, self._draw["parcel"]
        cos, sin = np.float32(np.cos(angle) / side), np.float32(np.sin(angle) / side)
        bend = np.float32(0.5) * self._noise(rows, cols, 23, 240)
        strip = np.floor(rows[:, None] * sin + cols * cos + bend).astype(np.int64)
        shift = uniform(hash_grid(strip, np.zeros(1, np.int64), self.seed + 6))
        along = np.float32(0.6) * (rows[:, None] * cos - cols * sin) + shift
        return hash_grid(strip, np.floor(along).astype(np.int64), self.seed)
