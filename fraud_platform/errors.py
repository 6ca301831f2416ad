"""Every error that the platform raises on purpose.

FraudPlatformError
|-- SettingsError      a setting or a configuration file is wrong
|-- MappingError       a dataset mapping is wrong
|-- SourceError        a source is missing, empty or lacks a column; nothing was written
|-- ContractError      a feature declaration is wrong, or two sides disagree on the contract
|-- LabelError         a label rule was broken: an immature label was asked to teach
|   `-- TooFewReportsError  too few frauds are known to tell how long they take to become known
|-- TrainingError      the training set cannot teach (too few rows, one class only)
|-- GateError          a promotion or an approval was refused
|-- BundleError        a bundle is damaged or does not match its manifest
|-- StoreError         the online feature store is missing, stale or of another contract
|   |-- TooLateError   an event is older than what the store can still answer exactly
|   `-- StoreMovedError  a store of another contract took this one's place; carries what to go on with
|-- RequestError       a decision request is invalid; carries field, value and rule
`-- DecisionLogError   the decision log is damaged

A message names the value, the rule and the fix.
"""

from __future__ import annotations

import traceback


class FraudPlatformError(Exception):
    """Base of the errors above: catch it to report, never to go on."""


class SettingsError(FraudPlatformError):
    pass


class MappingError(FraudPlatformError):
    pass


class SourceError(FraudPlatformError):
    pass


class ContractError(FraudPlatformError):
    pass


class LabelError(FraudPlatformError):
    pass


class TooFewReportsError(LabelError):
    pass


class TrainingError(FraudPlatformError):
    pass


class GateError(FraudPlatformError):
    pass


class BundleError(FraudPlatformError):
    pass


class StoreError(FraudPlatformError):
    pass


class DecisionLogError(FraudPlatformError):
    pass


class TooLateError(StoreError):
    pass


class StoreMovedError(StoreError):
    """contract: hash of the new store's contract; bundle: the bundle's folder that goes with it, or empty."""

    def __init__(self, path: object, contract: str, bundle: str) -> None:
        super().__init__(
            f"online store {path} was replaced by one of contract {contract[:12]}; go on with the bundle of "
            f"that contract ({bundle or 'none was named'})"
        )
        self.contract = contract
        self.bundle = bundle


class RequestError(FraudPlatformError):
    """A request that cannot be decided.

    field: the JSON field; value: what came (never a card number); rule: what must hold.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"{field}={value!r}: {rule}")
        self.field = field
        self.value = value
        self.rule = rule


def in_short(error: BaseException) -> str:
    """An unexpected error for a log: its kind and the places it passed. What it says could hold a value."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    places = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
