"""How QGIS shows a map: a layer file for all of it, and styles for the GeoPackage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from rasterio.crs import CRS

from sarflood.files import write_text

_WATER, _DEEP, _OUTLINE, _ZONE = "#1f6feb", "#08306b", "#0b3d91", "#57606a"
_VERSION = "3.22"  # of QGIS, that the styles were tried with; newer ones read them


@dataclass(frozen=True)
class _Layer:
    """A layer of the layer file.

    Attributes:
        name: As QGIS lists it.
        source: A file of the map, by its name, and maybe a layer of it.
        style: What a QML file has in it.
        is_on: Whether it is shown at first.
    """

    name: str
    source: str
    style: list[ET.Element]
    is_on: bool = True

    @property
    def provider(self) -> str:
        return "gdal" if self.source.endswith(".tif") else "ogr"


def write_layer_file(path: Path, title: str, label: str, crs: CRS, *, has_zones: bool) -> None:
    """Write a layer definition (.qlr) of the files that lie beside it.

    Args:
        path: Where to.
        title: The group that QGIS puts the layers into.
        label: What is mapped, such as `flood`.
        crs: Of the map.
        has_zones: Whether the GeoPackage has a layer of zones.
    """
    layers = [
        _Layer(f"{label}: polygons", "flood.gpkg|layername=flood", _outlined(_OUTLINE, 0.26)),
        _Layer("where not to trust the map", "exclusion.tif", _paletted(_EXCLUSION)),
        _Layer(f"{label}: mask", "flood.tif", _paletted(((0, "dry", "#000000", 0),
                                                        (1, label, _WATER, 200)))),
        _Layer("probability in percent", "probability.tif", _ramp(), is_on=False),
    ]  # fmt: skip
    if has_zones:
        layers.insert(0, _Layer("zones", "flood.gpkg|layername=zones", _outlined(_ZONE, 0.4)))
    root = ET.Element("qlr")
    # A group without a name is that of the project.
    group = ET.SubElement(ET.SubElement(root, "layer-tree-group", name=""), "layer-tree-group")
    group.attrib.update(name=title, checked="Qt::Checked", expanded="1")
    maps = ET.SubElement(root, "maplayers")
    for layer in layers:
        number = f"layer_{layers.index(layer)}"  # QGIS makes its own when it opens the file
        shown = {"checked": "Qt::Checked" if layer.is_on else "Qt::Unchecked", "expanded": "0"}
        said = {"id": number, "name": layer.name, "providerKey": layer.provider}
        ET.SubElement(group, "layer-tree-layer", said, source=f"./{layer.source}", **shown)
        kind = {"type": "raster"} if layer.provider == "gdal" else {"type": "vector"}
        if layer.provider == "ogr":
            kind["geometry"] = "Polygon"
        described = ET.SubElement(maps, "maplayer", kind)
        for tag, text in (
            ("id", number),
            ("datasource", f"./{layer.source}"),
            ("layername", layer.name),
            ("provider", layer.provider),
        ):
            ET.SubElement(described, tag).text = text
        described.append(_srs(crs))
        described.extend(layer.style)
    ET.indent(root)
    write_text(path, "<!DOCTYPE qgis-layer-definition>\n" + ET.tostring(root, "unicode") + "\n")


def vector_styles() -> dict[str, str]:
    """Return the styles of the GeoPackage's layers, as QML."""
    return {"flood": _qml(_outlined(_OUTLINE, 0.26)), "zones": _qml(_outlined(_ZONE, 0.4))}


_EXCLUSION = (
    (0, "trusted", "#000000", 0),
    (1, "no data", "#8c959f", 120),
    (2, "outside the training's range", "#fb8f44", 150),
    (3, "radar shadow or layover", "#8250df", 150),
)


def _qml(style: list[ET.Element]) -> str:
    root = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    root.extend(style)
    return ET.tostring(root, "unicode")


def _srs(crs: CRS) -> ET.Element:
    srs = ET.Element("srs")
    system = ET.SubElement(srs, "spatialrefsys")
    ET.SubElement(system, "wkt").text = crs.to_wkt()
    code = crs.to_epsg()
    ET.SubElement(system, "authid").text = f"EPSG:{code}" if code else ""
    return srs


def _paletted(classes: Sequence[tuple[int, str, str, int]]) -> list[ET.Element]:
    """Return a raster's style: value, label, colour and opacity (0 to 255) of each class."""
    pipe, renderer = _raster("paletted")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, label, color, alpha in classes:
        said = {"value": str(value), "label": label, "color": color, "alpha": str(alpha)}
        ET.SubElement(palette, "paletteEntry", said)
    return [pipe]


def _ramp() -> list[ET.Element]:
    """Return the style of percents: the more the darker, below one half ever more transparent."""
    pipe, renderer = _raster("singlebandpseudocolor")
    renderer.attrib.update(classificationMin="0", classificationMax="100")
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        minimumValue="0",
        maximumValue="100",
        clip="0",
    )
    for value, color, alpha in ((0, _WATER, 0), (50, "#9ecae1", 255), (100, _DEEP, 255)):
        said = {"value": str(value), "label": f"{value} %", "color": color, "alpha": str(alpha)}
        ET.SubElement(shader, "item", said)
    return [pipe]


def _raster(kind: str) -> tuple[ET.Element, ET.Element]:
    pipe = ET.Element("pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type=kind, band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    return pipe, renderer


def _outlined(color: str, width_mm: float) -> list[ET.Element]:
    """Return the style of polygons: lines, nothing inside."""
    renderer = ET.Element("renderer-v2", type="singleSymbol", symbollevels="0", enableorderby="0")
    symbols = ET.SubElement(renderer, "symbols")
    symbol = ET.SubElement(symbols, "symbol", type="fill", name="0", alpha="1", force_rhr="0")
    layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1", "pass": "0"})
    said = {"style": "no", "outline_color": color, "outline_style": "solid",
            "outline_width": str(width_mm), "outline_width_unit": "MM"}  # fmt: skip
    options = ET.SubElement(layer, "Option", type="Map")
    for key, value in said.items():
        # QGIS up to 3.26 reads `prop`, later ones `Option`.
        ET.SubElement(options, "Option", type="QString", name=key, value=value)
        ET.SubElement(layer, "prop", k=key, v=value)
    return [renderer]
