"""Quarantine: what was refused, with its reasons. Nothing is ever lost."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray

from sarflood.files import replacing, write_text
from sarflood.patches.store import stored_patches
from sarflood.raster.patch import UNKNOWN
from sarflood.sources.event import Event
from sarflood.sources.reader import Item
from sarflood.sources.scene import LABEL_TAG, MASK, PRE, SCENE
from sarflood.validation.pictures import MOST, Picture, write_pictures

Keep = Literal["files", "patch", "nothing"]


@dataclass(frozen=True)
class Refusal:
    """Why one item, or one patch of it, was not accepted.

    Attributes:
        item: The item.
        patch: The patch's id; None for the whole item.
        reasons: Sentences.
        keep: The item's files as they came; the patch alone, cut out of a scene, which may have
            gigabytes; or nothing, for an empty patch at a scene's edge, which is only noted.
    """

    item: Item
    patch: str | None
    reasons: tuple[str, ...]
    keep: Keep = "files"


def put_into_quarantine(folder: Path, refusals: Sequence[Refusal], read: Path) -> None:
    """Keep below `folder/files` what was refused, and note the reasons.

    Files are copied as they came; a patch of a scene becomes a folder with a small scene of its
    own. `reasons.jsonl` has all reasons; `index.html` shows the worst patches beside them.

    Args:
        folder: `data/quarantine/<id>`; what is there from an earlier attempt stays.
        refusals: In the order in which they are noted; one that was noted before is not repeated.
        read: The patches that could be read, as `PatchWriter` leaves them.
    """
    if not refusals:
        return
    notes = folder / "reasons.jsonl"
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    cut = _cut_out(folder / "files", [item for item in refusals if item.keep == "patch"], read)
    for refusal in refusals:
        item, kept = refusal.item, cut.get(refusal.patch or "", [])
        if refusal.keep == "files":
            kept = [_copy(path, folder / "files", item.root) for path in _inside(item)]
        note = {
            "item": item.name,
            "patch": refusal.patch,
            "reasons": list(refusal.reasons),
            "files": [path.relative_to(folder).as_posix() for path in kept],
        }
        lines.append(json.dumps(note, ensure_ascii=False))
    write_text(notes, "".join(f"{line}\n" for line in dict.fromkeys(lines)))
    shown = _pictures(refusals, read)
    if shown:
        event = folder.name
        lead = f"What was refused of event {event}, as it was read; the files lie beside this page."
        write_pictures(folder / "index.html", f"Quarantine: {event}", lead, shown)


def _pictures(refusals: Sequence[Refusal], read: Path) -> list[Picture]:
    """Return the refused patches, with pictures where one was read."""
    faults = [item for item in refusals if item.keep != "nothing"]
    wanted = {item.patch: item for item in sorted(faults, key=lambda item: -len(item.reasons))}
    wanted = dict(list(wanted.items())[: MOST + 1])
    pictures = [Picture(item.item.name, item.reasons) for item in faults if item.patch is None]
    unseen = [item for item in faults if item.patch is not None and item.patch not in wanted]
    pictures += [Picture(str(item.patch), item.reasons) for item in unseen]
    bands = Event.read(read / "event.yaml").bands
    for patch in stored_patches(read, {name for name in wanted if name}):
        name = patch.row["id"]
        pictures.append(Picture(name, wanted[name].reasons, bands, patch.image, patch.mask))
    return pictures


def _cut_out(folder: Path, refusals: Sequence[Refusal], read: Path) -> dict[str, list[Path]]:
    """Write patches as scenes without their padding; return the files of each."""
    wanted = {refusal.patch for refusal in refusals if refusal.patch}
    event = Event.read(read / "event.yaml")
    files = {}
    for patch in stored_patches(read, wanted) if wanted else ():
        name = patch.row["id"]
        height, width = patch.row["height"], patch.row["width"]
        image = patch.image[:, :height, :width].astype(np.float32)
        after = [band for band in event.bands if not band.endswith("_pre")]
        layers: dict[str, tuple[NDArray[Any], tuple[str, ...]]] = {}
        layers[SCENE] = (image[: len(after)], tuple(map(str.upper, after)))
        if len(after) < len(event.bands):
            layers[PRE] = (image[len(after) :], tuple(map(str.upper, after)))
        if patch.mask is not None:
            layers[MASK] = (patch.mask[None, :height, :width], (event.label or "",))
        here = read.with_name("cut")
        cut = here / name.rpartition("/")[2]
        cut.mkdir(parents=True, exist_ok=True)
        for file, layer in layers.items():
            _write(cut / file, *layer, patch.row)
        files[name] = [_copy(cut / file, folder, here) for file in layers]
    return files


def _write(
    path: Path, values: NDArray[Any], descriptions: tuple[str, ...], row: dict[str, Any]
) -> None:
    """Write (C, H, W) as a GeoTIFF on the grid of the patch."""
    transform = Affine(*json.loads(row["transform"])) if row["transform"] else None
    nodata = UNKNOWN if values.dtype == np.uint8 else np.nan
    count, height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype=values.dtype,
        crs=row["crs"],
        transform=transform,
        nodata=nodata,
        compress="deflate",
    ) as file:
        file.write(values)
        file.descriptions = descriptions
        if path.name == MASK:
            file.update_tags(**{LABEL_TAG: descriptions[0]})


def _inside(item: Item) -> list[Path]:
    """Return the files that are there, without links to what lies outside of the source."""
    root = item.root.resolve()
    return [path for path in item.files if path.is_file() and path.resolve().is_relative_to(root)]


def _copy(path: Path, folder: Path, root: Path) -> Path:
    """Copy a file below `folder`; another file of the same name is not overwritten."""
    inside = path.relative_to(root) if path != root else Path(path.name)
    target = folder / inside
    number = 1
    while target.exists() and not filecmp.cmp(path, target, shallow=False):
        number += 1
        target = folder / inside.with_name(f"{path.stem}.{number}{path.suffix}")
    if not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
    return target
