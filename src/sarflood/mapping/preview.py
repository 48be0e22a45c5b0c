"""A picture of a flood map: the radar in grey, the water in blue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sarflood.files import replacing
from sarflood.mapping.look import WATER, stretched
from sarflood.mapping.scene import SceneMap
from sarflood.raster.areas import pixel_size_m
from sarflood.raster.patch import WET

_NO_DATA, _INK = "#f1efe9", "#24292f"
_OPACITY = 0.72


def write_preview(result: SceneMap, path: Path, *, version: str, scene: str) -> None:
    """Draw the first band in grey with the wet pixels in blue, a scale bar, and a title."""
    picture = _picture(result)
    height, width = picture.shape[:2]
    figure = Figure(figsize=(9.0, 1.1 + 8.6 * min(1.6, max(0.45, height / width))), dpi=130)
    figure.set_facecolor("white")
    axes = figure.add_axes((0.03, 0.05, 0.94, 0.83))
    axes.imshow(picture, interpolation="antialiased")
    axes.set_axis_off()
    kind = "Flooded" if result.manifest.label == "flood" else "Water"
    figure.text(
        0.03,
        0.955,
        f"{kind}: {_rounded(result.flooded_km2)} km²",
        fontsize=17,
        weight="bold",
        color=_INK,
        va="center",
    )
    figure.text(
        0.03,
        0.91,
        f"{_shortened(scene)} · {result.flooded_share:.1%} of the pixels with data · "
        f"flood-unet {version}",
        fontsize=9.5,
        color="#57606a",
        va="center",
    )
    legend = f"{kind.lower()}     grey: {result.manifest.bands[0].upper()}     light: no data"
    figure.text(0.03, 0.027, "■ ", color=WATER, fontsize=12, va="center")
    figure.text(0.052, 0.027, legend, color="#57606a", fontsize=9, va="center")
    cell_km = pixel_size_m(result.grid)[0] / 1000 * result.backscatter_step
    _draw_scale_bar(axes, cell_km, width, height)
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches=None)


def _picture(result: SceneMap) -> NDArray[np.float32]:
    """Return (h, w, 3) colours in [0, 1]."""
    values = result.backscatter
    picture = np.repeat(stretched(values)[:, :, None], 3, axis=2)
    wet = _wet_share(result)[:, :, None] * _OPACITY
    picture = picture * (1 - wet) + np.array(to_rgb(WATER), np.float32) * wet
    picture[~np.isfinite(values)] = to_rgb(_NO_DATA)
    return picture


def _wet_share(result: SceneMap) -> NDArray[np.float32]:
    """Return the share of wet pixels in each cell of the thinned band, so that none is lost."""
    step, (height, width) = result.backscatter_step, result.backscatter.shape
    share = np.empty((height, width), np.float32)
    for top, mask in result.mask.strips():
        padding = [(0, -length % step) for length in mask.shape]
        cells = np.pad(mask == WET, padding).reshape(-(-len(mask) // step), step, width, step)
        row = top // step
        share[row : row + len(cells)] = cells.mean(axis=(1, 3), dtype=np.float32)
    return share


def _draw_scale_bar(axes: object, cell_km: float, width: int, height: int) -> None:
    """Draw a bar of a round length of at most a quarter of the picture."""
    longest = width * cell_km / 4
    magnitude = 10.0 ** np.floor(np.log10(longest))
    length_km = max(step * magnitude for step in (1, 2, 5) if step * magnitude <= longest)
    x, y = width * 0.03, height * 0.965
    end = x + length_km / cell_km
    thick = height * 0.006
    box = {"facecolor": "white", "alpha": 0.85, "linewidth": 0}
    axes.fill_between(  # type: ignore[attr-defined]
        [x - width * 0.012, end + width * 0.012], y - height * 0.055, y + height * 0.02, **box
    )
    axes.fill_between([x, end], y - thick, y + thick, color=_INK, linewidth=0)  # type: ignore[attr-defined]
    axes.text(  # type: ignore[attr-defined]
        (x + end) / 2,
        y - height * 0.012,
        f"{length_km:g} km",
        ha="center",
        va="bottom",
        fontsize=10,
        color=_INK,
    )


def _rounded(area_km2: float) -> str:
    return f"{area_km2:,.0f}" if area_km2 >= 100 else f"{area_km2:.3g}"


def _shortened(name: str) -> str:
    return name if len(name) <= 48 else f"{name[:30]}…{name[-15:]}"
