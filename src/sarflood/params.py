"""`params.yaml` as typed, closed models: the one place that knows every setting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from sarflood.errors import InputError
from sarflood.raster.patch import MAX_CLASSES

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Deviations = Annotated[float, Field(ge=0.0, le=5.0)]
Weight = Annotated[float, Field(ge=0.0, le=100.0)]
Normalisation = Literal["batch", "group"]
GROUP = 8  # channels that the latter normalises together
InputNormalisation = Literal["training", "fixed_db", "event", "local", "both"]
Reduction = Literal["batch", "image"]
LossName = Literal[
    "cross_entropy",
    "weighted_cross_entropy",
    "dice",
    "iou",
    "focal",
    "tversky",
    "focal_tversky",
    "lovasz",
    "boundary",
]


def _pair(weight: Any) -> Any:
    """A single weight stays the same over the training; YAML has a list where there are two."""
    if isinstance(weight, list):
        return tuple(weight)
    return weight if isinstance(weight, tuple) else (weight, weight)


def _tuple(names: Any) -> Any:
    """YAML has lists where the model has a tuple."""
    return tuple(names) if isinstance(names, list) else names


# Classes of a patch's wet share, by their upper ends; the first one is wholly dry.
WET_SHARES = {"0": 0.0, "to_1": 0.01, "to_5": 0.05, "to_20": 0.2, "to_50": 0.5, "to_100": 1.0}
Names = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
Blocks = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")], ...], BeforeValidator(_tuple)
]
Ramp = Annotated[tuple[Weight, Weight], BeforeValidator(_pair)]
ClassWeights = Annotated[
    tuple[Annotated[float, Field(gt=0.0, le=1000.0)], ...],
    Field(min_length=2, max_length=MAX_CLASSES),
]


class Closed(BaseModel):
    """A model that refuses unknown keys, NaN, and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class ValidationParams(Closed):
    """What the expectations on the per-patch statistics allow."""

    max_bad_share: Share
    min_valid_share: Share
    max_constant_share: Share
    db_range: tuple[float, float]
    min_std_db: Annotated[float, Field(ge=0.0, le=20.0)]
    min_std_uint8: Annotated[float, Field(ge=0.0, le=128.0)]
    max_wet_brighter_share: Share
    max_saturated_share: Share
    max_block_share: Share

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, values: Any) -> Any:
        """YAML has lists where the model has a pair."""
        if isinstance(values, dict) and isinstance(values.get("db_range"), list):
            return {**values, "db_range": tuple(values["db_range"])}
        return values

    @model_validator(mode="after")
    def _low_high(self) -> ValidationParams:
        if not self.db_range[0] < self.db_range[1]:
            raise ValueError(f"db_range {list(self.db_range)}: low comes first, then high")
        return self


class SplitParams(Closed):
    """How much of each event is set apart, and how far apart."""

    val_share: Annotated[float, Field(gt=0.0, le=0.4)]
    test_share: Annotated[float, Field(gt=0.0, le=0.4)]
    guard_patches: Annotated[int, Field(ge=0, le=8)]
    leave_out: Names

    @model_validator(mode="after")
    def _half_to_train(self) -> SplitParams:
        if self.val_share + self.test_share > 0.5:
            raise ValueError("val_share and test_share together may take half at most")
        return self


class InputParams(Closed):
    """What the network sees of an image; recorded with the model."""

    speckle_filter: Literal["none", "lee", "refined_lee"]
    normalisation: InputNormalisation
    fixed_db: dict[str, tuple[float, float]]

    @model_validator(mode="before")
    @classmethod
    def _pairs(cls, values: Any) -> Any:
        """YAML has lists where the model has pairs."""
        if isinstance(values, dict) and isinstance(values.get("fixed_db"), dict):
            ranges = values["fixed_db"].items()
            pairs = {key: tuple(pair) if isinstance(pair, list) else pair for key, pair in ranges}
            return {**values, "fixed_db": pairs}
        return values

    @model_validator(mode="after")
    def _low_high(self) -> InputParams:
        for band, (low, high) in self.fixed_db.items():
            if band not in {"vv", "vh"}:
                raise ValueError(f"fixed_db {band}: ranges are of vv and vh")
            if not low < high:
                raise ValueError(f"fixed_db {band} {[low, high]}: low comes first, then high")
        return self


class ModelParams(Closed):
    """The U-Net."""

    variant: Literal["plain", "residual", "attention", "light"]
    width: Annotated[int, Field(ge=2, le=128)]
    depth: Annotated[int, Field(ge=1, le=6)]
    normalisation: Normalisation
    upsampling: Literal["transposed", "bilinear"]
    dropout: Annotated[float, Field(ge=0.0, le=0.9)]
    skips: bool
    leak: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # versions from before it have none
    flips: Literal[1, 2, 4, 8]

    @model_validator(mode="after")
    def _whole_groups(self) -> ModelParams:
        if self.normalisation == "group" and self.width % GROUP:
            raise ValueError(
                f"width {self.width}: {GROUP} or a multiple of it with normalisation group"
            )
        return self

    def sentence(self) -> str:
        """Name the network, such as `attention U-Net of width 8 and depth 4, …`."""
        kind = "" if self.variant == "plain" else f"{self.variant} "
        return ", ".join(
            [
                f"{kind}U-Net of width {self.width} and depth {self.depth}",
                f"{self.normalisation} normalisation",
                f"{self.upsampling} up-sampling",
                *([f"dropout {self.dropout:g}"] if self.dropout else []),
                *([] if self.skips else ["without skips"]),
                *([f"leak {self.leak:g}"] if self.leak else []),
                *([f"answers averaged over {self.flips} flips"] if self.flips > 1 else []),
            ]
        )


class EncoderFile(Closed):
    """An encoder's weights in a local file, seen from the workspace; its hash says that it is this.

    So other weights under the same name are another setting, and DVC trains again.
    """

    file: Annotated[str, Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TrainParams(Closed):
    """Optimisation: ends at `epochs`, or `min_steps` if later, or at `max_minutes`, if earlier.

    Or where a cycle of the learning rate brought nothing.
    """

    epochs: Annotated[int, Field(ge=1, le=10_000)]
    min_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    max_minutes: Annotated[float, Field(gt=0.0, le=100_000.0)]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    crop: Annotated[int, Field(ge=32, le=256)]
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    ema: Annotated[float, Field(ge=0.0, lt=1.0)]
    balance_scenes: Share
    balance_wet: Share
    permanent_water: Share
    start_from: Annotated[str, Field(pattern=r"^v\d+\.\d+\.\d+$")] | EncoderFile | None
    processes: Annotated[int, Field(ge=1, le=64)]


class AugmentParams(Closed):
    """How training images are changed; see `patches.augment`."""

    jitter: Deviations
    contrast: Deviations
    speckle: Deviations
    band_dropout: Share
    holes: Share


_AUTO = {
    "auto": True,
    "terms": {"cross_entropy": 1.0, "dice": 1.0},
    "reduction": "batch",
    "class_weights": "inverse_frequency",
    "focal_gamma": 2.0,
    "tversky_alpha": 0.3,
    "tversky_beta": 0.7,
    "focal_tversky_gamma": 1.33,
}


class LossParams(Closed):
    """The loss: a weighted sum of terms, and the constants of the terms that have one.

    `loss: auto` leaves the terms to `model.advice`.
    """

    auto: bool = False
    terms: Annotated[dict[LossName, Ramp], Field(min_length=1)]
    reduction: Reduction
    class_weights: Literal["inverse_frequency"] | ClassWeights
    focal_gamma: Annotated[float, Field(ge=0.0, le=10.0)]
    tversky_alpha: Share
    tversky_beta: Share
    focal_tversky_gamma: Annotated[float, Field(ge=1.0, le=3.0)]

    @model_validator(mode="before")
    @classmethod
    def _tuple(cls, values: Any) -> Any:
        """YAML has lists where the model has a tuple; `auto` stands for all of it."""
        if values == "auto":
            return _AUTO
        if isinstance(values, dict) and isinstance(values.get("class_weights"), list):
            return {**values, "class_weights": tuple(values["class_weights"])}
        return values

    @model_validator(mode="after")
    def _some_weight(self) -> LossParams:
        if not sum(map(sum, self.terms.values())) > 0:
            raise ValueError("at least one term needs a weight above 0")
        if self.tversky_alpha + self.tversky_beta == 0:
            raise ValueError("tversky_alpha and tversky_beta cannot both be 0")
        return self

    def sentence(self) -> str:
        """Name the terms with their weights, such as `1 cross entropy + 0 to 0.5 boundary`."""
        return " + ".join(
            f"{first:g}{'' if first == last else f' to {last:g}'} {name.replace('_', ' ')}"
            for name, (first, last) in self.terms.items()
        )


Figure = Literal[
    "iou",
    "f1",
    "precision",
    "recall",
    "accuracy",
    "mean_iou",
    "patch_iou",
    "patch_mean_iou",
    "area_error",
    "boundary_f1",
    "boundary_distance_px",
    "boundary_distance_m",
    "ece",
]


class Limit(Closed):
    """Where a figure must lie: at or above `min`, at or below `max`."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if self.min is None and self.max is None:
            raise ValueError("neither min nor max is given")
        return self


Limits = dict[Figure, Limit]


class ChampionParams(Closed):
    """What a candidate must be against the champion, on the same test patches."""

    margin: Share
    confidence: Annotated[float, Field(ge=0.5, le=0.999)]
    min_gain: Annotated[float, Field(ge=-1.0, le=1.0)]
    may_forget: Names


class ShadowParams(Closed):
    """How a candidate must have answered copies of what the champion was asked.

    `least_equal` is the mean over the requests of the share of the pixels that are equal.
    """

    requests: Annotated[int, Field(ge=1, le=100_000)]
    least_equal: Share


class GateParams(Closed):
    """What a candidate must reach to be promoted."""

    overall: Annotated[Limits, Field(min_length=1)]
    event: Annotated[Limits, Field(min_length=1)]
    slices: dict[str, Limits]
    max_dry_false_alarms: Share
    champion: ChampionParams
    shadow: ShadowParams | None

    @model_validator(mode="after")
    def _slices_are_known(self) -> GateParams:
        for name in self.slices:
            kind, _, which = name.partition(" ")
            if not (kind == "region" and which) and not (kind == "wet" and which in WET_SHARES):
                raise ValueError(
                    f"slices: {name!r} is none; known: region and its name, and wet with one of "
                    f"{', '.join(WET_SHARES)}"
                )
        return self


class ServingParams(Closed):
    """Limits of the service and of the check that a new bundle must pass."""

    # A bundle's recorded patches, too, must fit into one upload.
    max_megabytes: Annotated[int, Field(ge=16, le=4096)]
    max_megapixels: Annotated[int, Field(ge=1, le=4096)]
    # Each for an upload to come, to wait for its turn, and to be mapped.
    max_seconds: Annotated[float, Field(gt=0.0, le=1200.0)]
    ready_within_s: Annotated[float, Field(gt=0.0, le=600.0)]
    patch_within_s: Annotated[float, Field(gt=0.0, le=60.0)]
    max_memory_gib: Annotated[float, Field(gt=0.0, le=1024.0)]
    engine: Literal["auto", "float32"]


class OperationsParams(Closed):
    """How `sarflood up` watches the inbox, and whom it tells."""

    inbox_quiet_s: Annotated[float, Field(ge=1.0, le=3600.0)]
    notify: Blocks


class MonitoringParams(Closed):
    """What a window of mapped images may differ from the training by."""

    window: Annotated[int, Field(ge=1, le=1000)]
    max_psi: Annotated[float, Field(ge=0.0, le=10.0)]
    max_ks: Share
    max_confidence_drop: Annotated[float, Field(ge=0.0, le=0.5)]
    false_alarms: Annotated[float, Field(ge=0.001, le=0.5)]


Longitude = Annotated[float, Field(ge=-180.0, le=180.0)]
Latitude = Annotated[float, Field(ge=-90.0, le=90.0)]
Box = tuple[Longitude, Latitude, Longitude, Latitude]


class PollArea(Closed):
    """An area of interest, and the STAC API that is asked for its new items.

    Attributes:
        name: Begins the ids of its events.
        bbox: West, south, east, north in degrees; west > east crosses the antimeridian.
        max_items: That one poll takes in.
        since_days: How long after its acquisition an item may appear.
    """

    name: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,19}$", description="1 to 20 of a–z, 0–9 and -")
    ]
    url: Annotated[str, Field(pattern=r"^https?://[^/\s]+", description="an address of http")]
    collections: Annotated[Names, Field(min_length=1, description="a list of names")]
    bbox: Annotated[
        Box,
        BeforeValidator(_tuple),
        Field(description="west, south, east, north in degrees"),
    ]
    max_items: Annotated[int, Field(ge=1, le=1000)] = 10
    since_days: Annotated[int, Field(ge=1, le=3650)] = 30

    @model_validator(mode="after")
    def _some_area(self) -> PollArea:
        west, south, east, north = self.bbox
        if west == east or not south < north:
            raise ValueError(
                f"bbox {list(self.bbox)}: west, south, east, north, with south below north; "
                "west above east where it crosses the antimeridian"
            )
        return self

    def boxes(self) -> tuple[Box, ...]:
        """Return the area as boxes that do not cross the antimeridian, which not all servers do."""
        west, south, east, north = self.bbox
        if west < east:
            return (self.bbox,)
        halves = (west, south, 180.0, north), (-180.0, south, east, north)
        return tuple(half for half in halves if half[0] < half[2])


_DASK = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[^\s/:@\[\]]+):([1-9][0-9]{0,4})")


class RunParams(Closed):
    """Where the tasks run that fan out: in threads of the flow's process, or on Dask."""

    dask: str | None

    @field_validator("dask", mode="before")
    @classmethod
    def _address(cls, address: Any) -> Any:
        found = _DASK.fullmatch(str(address))
        if address is not None and not (found and int(found[3]) < 2**16):
            raise ValueError(
                f"{address!r} is no address of a Dask scheduler; allowed: null, or one such as "
                "tcp://10.0.0.5:8786"
            )
        return address


class Params(Closed):
    """All of `params.yaml`."""

    validation: ValidationParams
    split: SplitParams
    input: InputParams
    model: ModelParams
    train: TrainParams
    augment: AugmentParams
    loss: LossParams
    gate: GateParams
    serving: ServingParams
    operations: OperationsParams
    monitoring: MonitoringParams
    run: RunParams
    poll: Annotated[
        tuple[PollArea, ...],
        BeforeValidator(_tuple),
        Field(description="a list of areas, each with name, url, collections and bbox"),
    ]

    @model_validator(mode="after")
    def _area_names_once(self) -> Params:
        names = [area.name for area in self.poll]
        if len(set(names)) != len(names):
            raise ValueError(f"poll: a name stands twice in {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _crop_deep_enough(self) -> Params:
        # A level of a single pixel has no batch statistics.
        if self.train.crop < 2 * 2**self.model.depth:
            raise ValueError(
                f"train.crop {self.train.crop} is too small for model.depth {self.model.depth}: "
                f"at least {2 * 2**self.model.depth}"
            )
        return self


def load_params(path: Path) -> Params:
    """Read `params.yaml`.

    Raises:
        InputError: Names the file, each wrong key with its value, and what is allowed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        # What is none of several kinds is an error of each kind.
        wrong = list(dict.fromkeys(f"  {_explain(item, content)}" for item in error.errors()))
        raise InputError(
            "\n".join([f"{path}: {len(wrong)} setting(s) to mend:", *wrong])
        ) from error


# Settings that are of one kind or another.
_EITHER = {
    "class_weights": "inverse_frequency, or a list with a weight for each class, above 0 to 1000",
    "start_from": "null, a version such as v0.2.0, or an encoder's weights, {file: …, sha256: …}, "
    "with the 64 hexadecimal digits that sha256sum prints",
}


def _explain(item: Any, content: Any) -> str:
    """Say one error of pydantic as `key = value: what is allowed`; the value is of the content."""
    for name, allowed in _EITHER.items():
        if name in item["loc"][1:2] and name in (section := content[item["loc"][0]]):
            return f"{item['loc'][0]}.{name}: {section[name]!r} is none; allowed: {allowed}"
    # pydantic adds the index in a pair, and a mark for a wrong key.
    location = [part for part in item["loc"] if isinstance(part, str) and part != "[key]"]
    key = ".".join(location) or "the whole file"
    if item["type"] == "extra_forbidden":
        known = _keys_of(location[:-1])
        return f"{key}: unknown key; known here: {', '.join(known)}"
    if item["type"] == "missing":
        return f"{key}: missing; allowed: {_allowed(location)}"
    if item["type"] == "literal_error" and "[key]" in map(str, item["loc"]):
        names = get_args(LossName if "terms" in location else Figure)
        return f"{key}: unknown; allowed: {', '.join(names)}"
    if item["type"] == "value_error":
        return f"{key}: {item['msg'].removeprefix('Value error, ')}"
    reason = item["msg"]
    return f"{key} = {item['input']!r}: {reason}; allowed: {_allowed(location)}"


def _model_at(location: list[str]) -> type[BaseModel] | None:
    model: type[BaseModel] = Params
    for part in location:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if get_origin(inner) is tuple:  # a list of models
            inner = get_args(inner)[0]
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        model = inner
    return model


def _keys_of(location: list[str]) -> list[str]:
    model = _model_at(location)
    return list(model.model_fields) if model else []


_WEIGHTS = "a weight from 0 to 100, or [first, last] for one that changes over the training"


def _allowed(location: list[str]) -> str:
    """Describe the range of a setting, such as `a number, 0 to 1`."""
    if location and location[-1] in _EITHER:
        return _EITHER[location[-1]]
    model = _model_at(location[:-1])
    field = model.model_fields.get(location[-1]) if model and location else None
    if field is None:
        return _WEIGHTS if "terms" in location else "a mapping of settings"
    if field.description:
        return field.description
    if _model_at(location):
        return f"a mapping with {', '.join(_keys_of(location))}"
    schema = model.model_json_schema()["properties"][location[-1]] if model else {}
    kind = {"integer": "a whole number", "number": "a number"}.get(str(schema.get("type")))
    if kind is None:
        return {"tuple": "two numbers, low and high"}.get(
            "tuple" if schema.get("type") == "array" else "", "a mapping of settings"
        )
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    above = "above " if "exclusiveMinimum" in schema else ""
    return f"{kind}, {above}{low} to {schema.get('maximum')}"
