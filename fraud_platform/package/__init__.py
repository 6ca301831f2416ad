"""package: an approved model and everything it needs to decide, as one content-addressed bundle.

Belongs here: what a bundle holds, its manifest, its check, reason texts, reference distributions.
Does not belong here: files and folders (`adapters.bundle_files`), the Bento (`adapters.bento`).
"""

from fraud_platform.package.bundle import Bundle, BundleParts, build, check_contract, parse
from fraud_platform.package.golden import GoldenRequest
from fraud_platform.package.reasons import ReasonTexts, load_reasons_text
from fraud_platform.package.reference import Distribution, Reference

__all__ = [
    "Bundle",
    "BundleParts",
    "Distribution",
    "GoldenRequest",
    "ReasonTexts",
    "Reference",
    "build",
    "check_contract",
    "load_reasons_text",
    "parse",
]
