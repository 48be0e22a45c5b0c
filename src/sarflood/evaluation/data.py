"""The report's section on the data: parts and their balance, leaks, copies, drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sarflood.evaluation.markup import note, section, table

_PARTS = (("train", "Training"), ("val", "Validation"), ("test", "Test"), ("held_out", "Held out"))
_UNUSED = ("guard", "unlabelled")


@dataclass(frozen=True)
class DataChecks:
    """What the stages before training found in the data.

    Attributes:
        split: `metrics/split.json`: by event and part, `patches` and `wet_share`.
        leaks: `metrics/leaks.json`.
        validation: `metrics/validation.json`, with `near_duplicates` and `drift`.
        max_psi: Population stability index above which a band is marked.
    """

    split: Mapping[str, Any]
    leaks: Mapping[str, Any]
    validation: Mapping[str, Any]
    max_psi: float


def data_section(checks: DataChecks) -> str:
    """Return the section as markup."""
    found = checks.validation
    return section(
        "Data",
        _balance(checks.split),
        note(
            "Patches, and the share of their labelled pixels that is wet. Unused patches keep the "
            "parts apart, or have no labels."
        ),
        table(("Check", "Found", ""), _checks(checks.leaks, found), kind="plain"),
        _drift(found["drift"], checks.max_psi),
    )


def _balance(split: Mapping[str, Any]) -> str:
    rows = []
    for event, parts in split.items():
        unused = sum(parts[name]["patches"] for name in _UNUSED if name in parts)
        rows.append((event, *(_part(parts.get(name)) for name, _ in _PARTS), f"{unused:,}"))
    if len(split) > 1:
        rows.append(("All events", *(_part(_pooled(split, name)) for name, _ in _PARTS), ""))
    return table(("Event", *(title for _, title in _PARTS), "Unused"), rows)


def _pooled(split: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Pool a part over events; their wet shares count by patches."""
    found = [parts[name] for parts in split.values() if name in parts]
    known = [part for part in found if part["wet_share"] is not None]
    patches = sum(part["patches"] for part in known)
    if not found:
        return None
    wet = sum(part["wet_share"] * part["patches"] for part in known) / patches if patches else None
    return {"patches": sum(part["patches"] for part in found), "wet_share": wet}


def _part(part: Mapping[str, Any] | None) -> str:
    if part is None:
        return "–"
    wet = part["wet_share"]
    return f"{part['patches']:,}" + ("" if wet is None else f" ({100 * wet:.1f} % wet)")


def _checks(leaks: Mapping[str, Any], found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    scored = sum(leaks.get(name, 0) for name, _ in _PARTS[1:])
    leaking = leaks.get("leaking", 0)
    copies = found["near_duplicates"]
    return [
        (
            "Expectations of the accepted patches",
            f"{found['expectations']} asked of {found['patches']:,} patches",
            f"{found['failed']} failed, {found['warnings']} warn",
        ),
        (
            "Scored patches that training knows",
            f"{leaking} of {scored:,}",
            "copies, shifted copies, masks, ground, neighbours, edge continuations",
        ),
        (
            "Pairs of patches with the same pixels, shifted or re-stretched",
            f"{copies:,}",
            "none in training and in a scored part" if copies else "",
        ),
    ]


def _drift(drift: Mapping[str, Any], max_psi: float) -> str:
    rows = [
        (
            event,
            band.upper().replace("_", " "),
            f"{found['psi']:.3f}",
            f"{found['ks']:.3f}",
            "drifted" if found["psi"] > max_psi else "",
        )
        for event, bands in drift.items()
        for band, found in bands.items()
    ]
    if not rows:
        return note("Drift: there is no earlier event to compare with.")
    header = ("Event", "Band", "Population stability index", "Kolmogorov–Smirnov", "")
    return table(header, rows) + note(
        "Pixel values of an event against those of all events accepted before it, over the deciles "
        f"of these. An index above {max_psi:g} counts as drift."
    )
