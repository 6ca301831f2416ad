"""`features`: the contract, and where each feature is used."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fraud_platform.cli.instance import console
from fraud_platform.settings import Settings

if TYPE_CHECKING:
    from fraud_platform.features.contract import Feature, FeatureContract
    from fraud_platform.package.usage import Usage

HEADER = "feature,kind,entity,stream,of,window,rules,read by,reason,gain,description".split(",")
WIDE = 240
"""Columns of what is piped: a line for each feature, to be searched."""


def show_features(settings: Settings, name: str, entity: str, window: str, stream: str) -> None:
    """Raises ContractError for a name, entity, window or stream that is not declared."""
    from fraud_platform.defs.platform import Platform
    from fraud_platform.package import ReasonTexts, load_reasons_text
    from fraud_platform.package.usage import usages

    platform = Platform(settings)
    contract = platform.contract
    chosen = {one.name for one in choose(contract, name, entity, window, stream)}
    model, gains = _gains(settings)
    found = usages(contract, platform.rules, ReasonTexts.from_yaml(load_reasons_text()), gains)
    shown = [one for one in found if one.feature.name in chosen]
    _show(shown)
    console.print(f"{len(shown)} features, contract {contract.hash[:16]}; gain: {model}")


def choose(
    contract: FeatureContract, name: str = "", entity: str = "", window: str = "", stream: str = ""
) -> tuple[Feature, ...]:
    """The features that all words given agree on; `name` is a feature's, an entity's or a window's."""
    from fraud_platform.features.contract import STREAMS, unknown

    windows = tuple(dict.fromkeys(f.window for f in contract.features if f.window is not None))
    for what, word, known in (
        ("entity", entity, tuple(contract.entities)),
        ("window", window, windows),
        ("stream", stream, STREAMS),
    ):
        if word and word not in known:
            raise unknown(what, word, known)
    if name and name not in (*contract.names, *contract.entities, *windows):
        raise unknown("feature, entity or window", name, (*contract.entities, *windows, *contract.names))
    # A name that is a feature's is that feature, also where an entity has it.
    features = contract.features if name not in contract.names else (contract.features[contract.index(name)],)
    by_group = name if name not in contract.names else ""
    return tuple(
        feature
        for feature in features
        if by_group in ("", feature.entity, feature.window)
        and entity in ("", feature.entity)
        and window in ("", feature.window)
        and (not stream or (feature.entity is not None and feature.stream == stream))
    )


def _gains(settings: Settings) -> tuple[str, dict[str, float] | None]:
    """Of the newest bundle, else of the newest candidate: what it is, and each feature's share."""
    from fraud_platform.package.usage import gain_shares

    for what, folder in (("bundle", settings.bundles), ("candidate", settings.candidates)):
        models = sorted(folder.glob("[0-9a-f]*/model.txt"), key=lambda path: path.stat().st_mtime_ns)
        if models:
            return f"of {what} {models[-1].parent.name[:12]}", gain_shares(models[-1].read_text())
    return "no model yet", None


def _show(shown: Iterable[Usage]) -> None:
    table = Table(*HEADER)
    table.columns[0].no_wrap = True
    for one in shown:
        feature = one.feature
        table.add_row(
            feature.name,
            feature.kind,
            feature.entity or "",
            feature.stream if feature.entity else "",
            ", ".join(feature.of or feature.inputs),
            feature.window or "",
            ", ".join(one.rules),
            ", ".join(one.read_by),
            one.reason,
            "" if one.gain_share is None else f"{one.gain_share:.1%}",
            feature.description,
        )
    wide = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)
    wide.print(table)
