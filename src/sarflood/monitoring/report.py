"""The comparison as a page: how the window differs from the training, and how it came to that."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sarflood.evaluation.figures import BLUE, GREY, ORANGE, as_svg, new_figure
from sarflood.evaluation.markup import images, note, page, section, table, tile
from sarflood.files import write_json, write_text
from sarflood.monitoring.compare import Drift, shares_of, training_shares
from sarflood.monitoring.histograms import Shares, bin_edges
from sarflood.monitoring.reference import Reference
from sarflood.monitoring.sight import Seen
from sarflood.workspace import Workspace

_JSON, _PAGE = "drift.json", "drift.html"
_TITLES = {
    "psi": "Population stability index",
    "ks": "Kolmogorov–Smirnov",
    "confidence_drop": "Drop of the confidence",
}
_UNITS = {"db": "dB", "uint8": "grey level"}


def write_drift(workspace: Workspace, drift: Drift, reference: Reference, seen: list[Seen]) -> Path:
    """Write `reports/drift/drift.json` and `drift.html`, which loads nothing; return the page.

    Args:
        workspace: Where.
        drift: What was found.
        reference: What the window was compared with.
        seen: All that the version has seen; the window is the last of it.
    """
    path = workspace.drift / _PAGE
    write_text(path, page("Flood model: drift", _body(drift, reference, seen)))
    write_json(workspace.drift / _JSON, drift.as_json())
    return path


def last_report(workspace: Workspace) -> dict[str, Any] | None:
    """Return the last comparison, `Drift.as_json`; None where there is none."""
    try:
        found = json.loads((workspace.drift / _JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _body(drift: Drift, reference: Reference, seen: list[Seen]) -> list[str]:
    word = "drifted" if drift.reasons else "quiet"
    reasons = "; ".join(drift.reasons) or "All figures are within what quiet images reach."
    wet, sure = drift.wet_share, drift.confidence
    worst = {
        name: max(
            (item for item in drift.figures if item.name == name),
            key=lambda item: item.value / item.limit,
        )
        for name in ("psi", "ks")
    }
    tiles = [
        *(
            tile(
                _TITLES[name], f"{item.value:.3f}", f"{_band(item.band)}, at most {item.limit:.3f}"
            )
            for name, item in worst.items()
        ),
        tile("Confidence", f"{sure[0]:.3f}", f"validation patches {sure[1]:.3f}"),
        tile("Wet", _percent(wet[0]), f"validation patches {_percent(wet[1])}"),
    ]
    rows = [
        (
            _TITLES[item.name],
            _band(item.band),
            f"{item.value:.3f}",
            f"{item.limit:.3f}",
            "drifted" if item.drifted else "",
        )
        for item in drift.figures
    ]
    rows += [
        ("Beyond the training's range", _band(band), _percent(share), "", "")
        for band, share in drift.outside.items()
    ]
    of = "One image" if drift.images == 1 else f"{drift.images} images"
    header = (
        "<header><h1>Flood model: drift</h1>"
        f"<p>{of} mapped by {drift.version} from {drift.first:%Y-%m-%d %H:%M} to "
        f"{drift.last:%Y-%m-%d %H:%M} UTC, against what it was trained on.</p></header>"
    )
    return [
        header,
        f'<div class="tiles">{"".join(tiles)}</div>',
        section(
            f"The window has {word}" if drift.reasons else f"The window is {word}",
            note(reasons),
            table(("Figure", "Band", "Seen", "At most", ""), rows),
            note(
                "A limit is the larger of the setting in params.yaml and of what as many images of "
                "the training's own scenes reach. 0.2 % of the training lie beyond its range."
            ),
            kind="refused" if drift.reasons else "passed",
        ),
        '<div class="pair">',
        *_histograms(drift, reference, seen),
        "</div>",
        _over_time(drift, seen),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _band(band: str | None) -> str:
    return band.upper().replace("_", " ") if band else ""


def _histograms(drift: Drift, reference: Reference, seen: Sequence[Seen]) -> list[str]:
    window = [shares_of(item.bands, reference) for item in seen[-drift.images :]]
    pairs = zip(reference.bands, training_shares(reference), np.mean(window, axis=0), strict=True)
    return [
        section(
            _band(band),
            images(
                [(_histogram(training, own, reference.units), f"Values of {band}")],
                "Share of the pixels in each bin: training in grey, the window in blue.",
            ),
        )
        for band, training, own in pairs
    ]


def _histogram(training: Shares, own: Shares, units: str) -> str:
    edges = bin_edges(units)
    figure = new_figure()
    axes = figure.add_subplot()
    axes.stairs(training, edges, fill=True, color="#CBD2D9")
    axes.stairs(own, edges, color=BLUE, linewidth=1.5)
    used = np.flatnonzero(training + own > 1e-4)
    axes.set(xlim=(edges[used[0]], edges[used[-1] + 1]), xlabel=_UNITS[units], ylabel="share")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    return as_svg(figure)


def _over_time(drift: Drift, seen: Sequence[Seen]) -> str:
    from matplotlib.ticker import MaxNLocator

    figure = new_figure()
    upper, lower = figure.subplots(2, sharex=True)
    number = np.arange(1, len(seen) + 1)
    for axes, values, expected, colour, label in (
        (upper, [item.confidence for item in seen], drift.confidence[1], BLUE, "confidence"),
        (lower, [item.wet_share for item in seen], drift.wet_share[1], ORANGE, "wet share"),
    ):
        axes.axhline(expected, color=GREY, linewidth=0.8, linestyle="--")
        axes.axvspan(len(seen) - drift.images + 0.5, len(seen) + 0.5, color="#F0F4F8")
        axes.plot(number, values, color=colour, marker=".", markersize=4, linewidth=0.8)
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
    lower.set_xlabel("image")
    lower.set_xlim(0.5, len(seen) + 0.5)
    upper.set_ylim(0.5, 1)
    lower.set_ylim(bottom=0)
    caption = (
        f"All that is in the journal, {seen[0].time:%Y-%m-%d %H:%M} to "
        f"{seen[-1].time:%Y-%m-%d %H:%M}; the window is shaded, the dashed line is that of the "
        "validation patches."
    )
    return section("Over time", images([(as_svg(figure), "Confidence and wet share")], caption))
