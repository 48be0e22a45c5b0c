"""The container image of a bundle, as BentoML is told to make it."""

from __future__ import annotations

from bentoml.images import Image

# BentoML's own commands would bring a compiler and git. The requirements are all that is needed, so
# none of their own wishes is followed, such as torch's for setuptools. GDAL's wheel lacks libexpat.
IMAGE = Image(
    base_image="python:3.11-slim",
    distro="",
    python_version="3.11",
    commands=[
        "apt-get update && apt-get install --yes --no-install-recommends libexpat1",
        r"mkdir -p /etc/uv && printf '[pip]\nno-deps = true\n' > /etc/uv/uv.toml",
    ],
)
