"""The container image of a Bento: BentoML containerizes it, a second build makes it fit to be locked down.

Belongs here: the base, the user, the defaults of the environment, the builder's process. Does not belong
here: what a container does first (`adapters.image_start`), what is in a Bento (`adapters.bento`).

BentoML's image has caches, and code that the service's user could change. The second build takes the Bento
and its environment out of it, owned by root, onto the same base; the service runs as a numeric user that owns
nothing but its state, so that the container may be read-only and without capabilities.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fraud_platform.adapters.bento import NAME, QUIET
from fraud_platform.adapters.image_start import BENTO_VARIABLE, PORT_VARIABLE, STATE_VARIABLE
from fraud_platform.errors import FraudPlatformError

BACKENDS = ("docker", "podman", "buildah")
USER = 1034
"""BentoML's own number for its user; nobody on a usual host has it."""
PORT = 3000
STATE = "/var/lib/fraud_platform"
BENTO_PLACE = "/opt/fraud_platform/bento"
VENV_PLACE = "/app/.venv"

LIBGOMP = (
    "ldconfig -p | grep -q libgomp.so.1 || { apt-get update -qq && apt-get install -y -qq "
    "--no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*; }"
)
"""LightGBM's only system library. BentoML would install compilers and git, some 600 MB."""

ENVIRONMENT = {
    BENTO_VARIABLE: BENTO_PLACE,
    STATE_VARIABLE: STATE,
    PORT_VARIABLE: str(PORT),
    "BENTOML_HOST": "0.0.0.0",
    "BENTOML_HOME": "/tmp/bentoml",
    "BENTOML_CONTAINERIZED": "true",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PATH": f"{VENV_PLACE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": f"{BENTO_PLACE}/src",
    "PYTHONUNBUFFERED": "1",
    "VIRTUAL_ENV": VENV_PLACE,
    **QUIET,
}


class ImageError(FraudPlatformError):
    """The image could not be built."""


@dataclass(frozen=True)
class ImageSettings:
    """base: the image to build on, BentoML's default where empty (Debian, Python 3.11); name: of the image,
    with or without a tag (the Bento's version); options: the builder's own, `network=host`, `pull-never`."""

    base: str = ""
    name: str = NAME
    backend: str = BACKENDS[0]
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ImageError(f"backend {self.backend!r}: give one of {', '.join(BACKENDS)}")


@dataclass(frozen=True)
class BuiltImage:
    """reference: name and tag; size: as the builder prints it."""

    reference: str
    id: str
    size: str


def build_image(bento: Path, settings: ImageSettings) -> BuiltImage:
    """Build the image of the Bento in a folder. ImageError with the builder's last words where it fails."""
    if shutil.which(settings.backend) is None:
        raise ImageError(f"{settings.backend} is not installed: install it, or give another --backend")
    info = yaml.safe_load((bento / "bento.yaml").read_text(encoding="utf-8"))
    version = str(info["version"])
    base = settings.base or str(info["image"]["base_image"])
    name = settings.name.rpartition("/")[2]
    reference = settings.name if ":" in name else f"{settings.name}:{version}"
    inner = f"{NAME}-bento:{version}"
    with tempfile.TemporaryDirectory(prefix="image-") as folder:
        _containerize(bento, info, base, inner, settings, Path(folder))
        (Path(folder) / "Containerfile").write_text(containerfile(inner, base, info), encoding="utf-8")
        _run([*_build_command(settings), "--tag", reference, *_flags(settings), folder])
    return _found(reference, settings.backend)


def containerfile(inner: str, base: str, info: dict[str, object]) -> str:
    """The second build: what `inner` holds, owned by root, on `base`."""
    version = str(info["version"])
    labels = {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": str(info["creation_time"]),
        "org.opencontainers.image.base.name": base,
        f"{NAME}.bento": f"{NAME}:{version}",
        f"{NAME}.bundle": version.partition("-")[0],
    }
    start = f'"{VENV_PLACE}/bin/python", "-m", "fraud_platform.adapters.image_start"'
    return "\n".join(
        [
            f"FROM {inner} AS bento",
            f"FROM {base}",
            f"RUN {LIBGOMP}",
            f"COPY --from=bento --chown=0:0 /app {VENV_PLACE.rpartition('/')[0]}",
            f"COPY --from=bento --chown=0:0 /home/bentoml/bento {BENTO_PLACE}",
            f"RUN {VENV_PLACE}/bin/python -m compileall -q {BENTO_PLACE}/src && rm -f {VENV_PLACE}/.lock"
            f" && mkdir -p {STATE} && chown {USER}:{USER} {STATE} && chmod 750 {STATE}",
            *(f'ENV {variable}="{value}"' for variable, value in ENVIRONMENT.items()),
            *(f'LABEL {label}="{value}"' for label, value in labels.items()),
            f"EXPOSE {PORT}",
            f"WORKDIR {BENTO_PLACE}",
            f"USER {USER}:{USER}",
            "STOPSIGNAL SIGTERM",
            f'HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD [{start}, "health"]',
            f"ENTRYPOINT [{start}]",
            "",
        ]
    )


def _containerize(
    bento: Path, info: dict[str, object], base: str, inner: str, settings: ImageSettings, folder: Path
) -> None:
    """BentoML's own build, of a copy of the Bento whose base and system packages are ours.

    The Bento itself stays as it was built: on which base it runs is the image's business.
    """
    home = folder / "home"
    version = str(info["version"])
    copy = home / "bentos" / NAME / version
    shutil.copytree(bento, copy)
    image = {**dict(info["image"]), "base_image": base, "commands": [LIBGOMP]}  # type: ignore[call-overload]
    (copy / "bento.yaml").write_text(yaml.safe_dump({**info, "image": image}), encoding="utf-8")
    command = [sys.executable, "-m", "bentoml", "containerize", f"{NAME}:{version}"]
    command += ["--backend", settings.backend, "--image-tag", inner]
    command += [word for option in settings.options for word in ("--opt", option)]
    _run(command, env={**os.environ, **QUIET, "BENTOML_HOME": str(home)})


def _build_command(settings: ImageSettings) -> list[str]:
    """OCI's own format has no health check."""
    is_docker = settings.backend == "docker"
    return [settings.backend, "build", *([] if is_docker else ["--format", "docker"])]


def _flags(settings: ImageSettings) -> list[str]:
    pairs = (option.partition("=") for option in settings.options)
    return [word for name, _, value in pairs for word in (f"--{name}", value) if word]


def _found(reference: str, backend: str) -> BuiltImage:
    said = _run([backend, "images", "--no-trunc", "--format", "{{.ID}} {{.Size}}", reference]).split("\n")[0]
    image, _, size = said.partition(" ")
    if not size:
        raise ImageError(f"{backend} built {reference}, but does not list it: {said!r}")
    return BuiltImage(reference, image.removeprefix("sha256:"), size.strip())


def _run(command: Sequence[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-40:])
        raise ImageError(f"{' '.join(command[:5])} ... ended with {done.returncode}:\n{said}")
    return done.stdout
