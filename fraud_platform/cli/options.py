"""Options that several commands share, and the settings they make."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fraud_platform.settings import DATASET_VARIABLE, SOURCE_VARIABLE, Settings

Dataset = Annotated[
    str | None, typer.Option(help=f"A shipped dataset's name or a mapping's path [{DATASET_VARIABLE}]")
]
Source = Annotated[
    Path | None, typer.Option(help=f"Folder, file or glob that the mapping reads [{SOURCE_VARIABLE}]")
]
AsOfOption = Annotated[
    str,
    typer.Option(
        "--as-of", help="Look at labels as of this date or moment (UTC), not at the end of the data"
    ),
]

RowsMax = Annotated[int, typer.Option(help="Legitimate rows that teach at the most, in each fold")]
Folds = Annotated[int, typer.Option(min=1, help="Weeks that choose, and as many later ones that judge")]


def settings_of(dataset: str | None, source: Path | None) -> Settings:
    """The environment's settings, overridden by what the command line names."""
    env = dict(os.environ)
    if dataset is not None:
        if dataset != env.get(DATASET_VARIABLE):
            env.pop(SOURCE_VARIABLE, None)
        env[DATASET_VARIABLE] = (
            str(Path(dataset).resolve()) if dataset.endswith((".yaml", ".yml")) else dataset
        )
    if source is not None:
        env[SOURCE_VARIABLE] = str(source)
    return Settings.from_env(env)
