"""Bundles, built from a version's tagged code."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml

from sarflood.errors import InputError, SarfloodError
from sarflood.files import sha256, write_json, write_text
from sarflood.process import run
from sarflood.serving.lock import lock
from sarflood.workspace import MODEL_NAME

SUMS = "SHA256SUMS"  # `sha256sum --check` in the bundle's folder reads it
EVALUATION = "metrics/evaluation.json"


def build_bundle(
    code: Path,
    package: Path,
    version: str,
    store: Path,
    on_line: Callable[[str], object] | None = None,
) -> str:
    """Build the bundle of a version, if it is not in the store yet, whole and unchanged.

    Args:
        code: The tree of the version's git tag; `src`, `bentofile.yaml` and `params.yaml` are used,
            and `metrics/evaluation.json` if it is there.
        package: The version's model files.
        version: Such as `v0.3.0`.
        store: The BentoML store (its `BENTOML_HOME`).
        on_line: Sees each line that the build prints.

    Returns:
        The bundle's tag, such as `flood-unet:v0.3.0`.

    Raises:
        InputError: `code` lacks a file that is needed.
        SarfloodError: BentoML could not build it.
    """
    tag = f"{MODEL_NAME}:{version}"
    folder = bundle_folder(tag, store)
    if not _is_whole(folder):
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="sarflood-bundle-") as name:
            context = Path(name)
            engine = _lay_out(context, code, package, version)
            shutil.rmtree(folder, ignore_errors=True)
            _make_engines(context, exact=engine == "float32", on_line=on_line)
            run(
                [sys.executable, "-m", "bentoml", "build", "--version", version, "-o", "tag", "."],
                context,
                on_line=on_line,
                environment={"BENTOML_HOME": str(store), "PYTHONDONTWRITEBYTECODE": "1"},
            )
        write_text(folder / SUMS, _sums(folder))
    return tag


def bundle_folder(tag: str, store: Path) -> Path:
    """Return where a tag, such as `flood-unet:v0.3.0`, lies in the store once it is built."""
    name, _, version = tag.partition(":")
    return store / "bentos" / name / version


def is_built(tag: str, store: Path) -> bool:
    """Say whether a bundle is in the store, whole."""
    return (bundle_folder(tag, store) / SUMS).is_file()


def content_hash(tag: str, store: Path) -> str:
    """Return the SHA-256 of a bundle's `SHA256SUMS`, which has that of each file that serves.

    Two builds of a version have the same, wherever and whenever they are made with the same
    packages.
    """
    return sha256(bundle_folder(tag, store) / SUMS)


def _is_whole(folder: Path) -> bool:
    """Say whether a bundle has all its files, as they were built."""
    try:
        return (folder / SUMS).read_text(encoding="utf-8") == _sums(folder)
    except OSError:
        return False


def _sums(folder: Path) -> str:
    """Return the SHA-256 of each file as `sha256sum` writes and checks it.

    Left out is what BentoML writes of its build, with the time, and what Python adds when it runs.
    """
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return "".join(
        f"{sha256(folder / path)}  {path.as_posix()}\n"
        for path in files
        if path.name not in {SUMS, "bento.yaml"} and path.suffix != ".pyc"
    )


def _lay_out(context: Path, code: Path, package: Path, version: str) -> str:
    """Copy what the build may see: the tag's code, its settings, and the model files.

    Returns:
        The engine that its settings ask for.
    """
    try:
        shutil.copytree(
            code / "src" / "sarflood",
            context / "sarflood",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        # Engine files beside it are of this machine's code.
        own = shutil.ignore_patterns("engine*")
        shutil.copytree(package, context / "package", ignore=own)
        if (code / EVALUATION).is_file():  # so that the service can say how good it is
            shutil.copy(code / EVALUATION, context / "package" / "evaluation.json")
        recipe = yaml.safe_load((code / "bentofile.yaml").read_text(encoding="utf-8"))
        params = yaml.safe_load((code / "params.yaml").read_text(encoding="utf-8"))
    except (OSError, shutil.Error, yaml.YAMLError) as error:
        raise InputError(f"{code}: not the code of a version: {error}") from error
    python = recipe["python"]
    # BentoML adds itself.
    needed = lock([*python["packages"], "bentoml"])
    python["packages"] = [item for item in needed if not item.startswith("bentoml==")]
    write_text(context / "bentofile.yaml", yaml.safe_dump(recipe, sort_keys=False))
    # The served code, which is as old as these settings, checks them when it starts.
    info = {"version": version, "serving": params["serving"]}
    write_json(context / "package" / "bundle.json", info)
    return str(params["serving"]["engine"])


def _make_engines(context: Path, *, exact: bool, on_line: Callable[[str], object] | None) -> None:
    """Let the version's own code make the engine files; a bundle without them is only slower."""
    command = [sys.executable, "-m", "sarflood.mapping.convert", "package"]
    try:
        run([*command, "--exact"] if exact else command, context, on_line=on_line)
    except SarfloodError as error:
        if on_line:
            on_line(f"no engine files, PyTorch will do: {error}")


def stored_tag(version: str, store: Path) -> str:
    """Return the tag of a version's bundle in the store.

    Raises:
        InputError: It has not been built.
    """
    tag = f"{MODEL_NAME}:{version}"
    if not is_built(tag, store):
        raise InputError(f"{store}: no bundle {tag}; build it with `sarflood bundle {version}`")
    return tag
