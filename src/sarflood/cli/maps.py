"""The verb `map`: scenes into maps for people and GIS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sarflood.cli.console import Where, app, err, from_here, run_flow
from sarflood.errors import InputError
from sarflood.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from sarflood.mapping.wanted import Wanted


@app.command("map")
def map_(
    scenes: Annotated[
        list[str],
        typer.Argument(
            metavar="SCENE…",
            help="GeoTIFF; SAFE folder of a GRD product; folder with scene.tif, or scene_vv.tif "
            "and scene_vh.tif, and maybe pre.tif; or STAC item, by path or http address.",
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", help="Where the maps go.")],
    pre: Annotated[
        Path | None,
        typer.Option(
            help="From before the flood: GeoTIFF, SAFE folder of a GRD product, or folder with "
            "scene.tif, or scene_vv.tif and scene_vh.tif."
        ),
    ] = None,
    version: Annotated[str | None, typer.Option(help="By default the one in production.")] = None,
    min_area: Annotated[
        float, typer.Option(min=0, max=1e9, help="Smaller wet areas, in m², get no polygon.")
    ] = 500.0,
    simplify: Annotated[
        float, typer.Option(min=0, max=1e5, help="Metres that outlines may be off; 0: as pixels.")
    ] = 0.0,
    zones: Annotated[
        Path | None, typer.Option(help="Polygons, such as municipalities, to tell the area of.")
    ] = None,
    zone_field: Annotated[
        str | None, typer.Option(help="Field with their names; by default the first with text.")
    ] = None,
    permanent_water: Annotated[
        Path | None, typer.Option(help="Raster of what is no flood: 1 where there is always water.")
    ] = None,
    dem: Annotated[
        Path | None, typer.Option(help="Raster of heights in metres, for radar shadow.")
    ] = None,
    orbit: Annotated[
        str | None,
        typer.Option(
            help="With --dem: ascending or descending, where a scene does not say it itself.",
            metavar="PASS",
        ),
    ] = None,
    incidence: Annotated[
        float, typer.Option(min=15, max=60, help="With --dem: degrees, mid-scene.")
    ] = 39.0,
    series: Annotated[
        bool, typer.Option("--series", help="Follow the flood through the scenes' dates, too.")
    ] = False,
    workspace: Where = None,
) -> None:
    """Map a scene: rasters, polygons, a layer file for QGIS, a picture, a summary; see docs/map.md.

    Of several scenes each gets a folder in `--out`; those that are mapped there are passed over.

    Examples: `sarflood map scene.tif --pre before.tif --out maps/ulysses`,
    `sarflood map scene.tif --zones towns.gpkg --permanent-water rivers.tif --out maps/ulysses`,
    `sarflood map incoming/* --out maps --series`,
    `sarflood map https://example.org/items/S1A_IW_GRDH_20190302.json --out maps/alabama`
    """
    place = find_workspace(workspace)
    wanted = _wanted(
        min_area_m2=min_area,
        simplify_m=simplify,
        zones=zones,
        zone_field=zone_field,
        permanent_water=permanent_water,
        terrain=_terrain(dem, orbit, incidence),
    )
    if len(scenes) == 1:
        if series:
            raise InputError("--series needs two scenes or more, each of a date of its own")
        _map_scene(place, scenes[0], pre, folder, version, wanted)
        return
    if pre:
        raise InputError(
            "--pre goes with one scene; of several, give folders with scene.tif and pre.tif"
        )
    from sarflood.sources.stac import is_remote

    maps = run_flow(
        place,
        "map_scenes",
        scenes=[item if is_remote(item) else str(Path(item).resolve()) for item in scenes],
        out=str(folder.resolve()),
        version=version,
        wanted=wanted.model_dump(mode="json"),
        series=series,
    )
    told: dict[str, Any] = {
        name: {
            "folder": from_here(folder / name),
            "flooded_km2": row["flooded_km2"],
            "new": row["new"],
        }
        for name, row in maps.items()
    }
    typer.echo(json.dumps(told, indent=2))
    if series:
        from sarflood.mapping.series import FILES

        err.print(f"over time: {', '.join(from_here(folder / file) for file in FILES.values())}")


def _wanted(**asked: Any) -> Wanted:
    """Return what is asked of the files, by full paths."""
    from sarflood.mapping.wanted import Wanted

    if asked["zone_field"] and not asked["zones"]:
        raise InputError("--zone-field goes with --zones")
    full = {key: path.resolve() for key, path in asked.items() if isinstance(path, Path)}
    return Wanted(**{**asked, **full})


def _terrain(dem: Path | None, orbit: str | None, incidence: float) -> dict[str, Any] | None:
    if dem is None:
        if orbit:
            raise InputError("--orbit goes with --dem")
        return None
    from sarflood.raster.terrain import orbit_of

    if orbit is not None and orbit_of(orbit) is None:
        raise InputError(f"--orbit {orbit}: ascending or descending")
    return {"dem": dem.resolve(), "orbit": orbit and orbit_of(orbit), "incidence": incidence}


def _map_scene(
    place: Workspace,
    source: str,
    pre: Path | None,
    folder: Path,
    version: str | None,
    wanted: Wanted,
) -> None:
    """Map one scene here and now, with a bar that shows how far it is."""
    from rich.progress import Progress

    from sarflood.mapping.folder import FILES
    from sarflood.mapping.scenes import Job, map_into, scratch_folder
    from sarflood.mapping.sources import find_scene, with_scene_before
    from sarflood.params import load_params
    from sarflood.promotion.registry import fetch_version, find_version

    files = find_scene(source)
    if pre:
        files = with_scene_before(files, find_scene(pre))
    found = find_version(place, version)
    may_round = load_params(place.params).serving.engine == "auto"
    with scratch_folder(folder) as scratch, Progress(console=err, transient=True) as progress:
        task = progress.add_task(f"mapping {files.name} with {found.version}", total=1.0)
        package = fetch_version(place, found)
        job = Job(package, files, scratch, folder, found.version, may_round, wanted)
        summary = map_into(job, lambda done: progress.update(task, completed=done))
    err.print(
        f"{found.version}: {summary['label']} on {summary['flooded_km2']:.6g} km², "
        f"{summary['flooded_share']:.1%} of the pixels with data"
        + ("" if summary["new"] else "; it was mapped before"),
        highlight=False,
        soft_wrap=True,
    )
    written = {name: from_here(folder / file) for name, file in FILES.items()}
    typer.echo(json.dumps(written, indent=2))
