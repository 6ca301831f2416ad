"""The simulate stage: a seeded payments world in front of ingest.

Belongs here: people, honest payments, fraud campaigns, what becomes known of them and when, the truth.
Does not belong here: files (adapters/landing.py), canonical checks (ingest), any other stage.
"""

from fraud_platform.simulate.spec import WorldSpec
from fraud_platform.simulate.world import Progress, World, simulate

__all__ = ["Progress", "World", "WorldSpec", "simulate"]
