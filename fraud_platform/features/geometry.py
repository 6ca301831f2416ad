"""Straight-line kilometres from + - * / and sqrt alone, operation by operation the twin of geometry.sql."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt

Place = tuple[float, float, float]
"""A point on the unit sphere."""

EARTH_RADIUS_KM = 6371.0088
_RADIANS_PER_HALF_DEGREE = 8.726646259971648e-03
_SINE = (6.0, 20.0, 42.0, 72.0, 110.0, 156.0, 210.0)
_COSINE = (2.0, 12.0, 30.0, 56.0, 90.0, 132.0, 182.0)


@lru_cache(maxsize=1 << 14)
def place(latitude: float, longitude: float) -> Place:
    """Degrees to a point on the unit sphere; homes and merchants come again, so the last ones are kept.

    >>> [round(value, 9) for value in place(90.0, 12.0)]
    [0.0, 0.0, 1.0]
    """
    sine_latitude, cosine_latitude = _sine_cosine(latitude)
    sine_longitude, cosine_longitude = _sine_cosine(longitude)
    return cosine_latitude * cosine_longitude, cosine_latitude * sine_longitude, sine_latitude


def distance_km(start: Place, end: Place) -> float:
    """The chord through the Earth: 0.1 % short of the great circle at 1,000 km.

    >>> round(distance_km(place(52.5200, 13.4050), place(48.8566, 2.3522)), 1)
    877.2
    """
    x, y, z = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    return EARTH_RADIUS_KM * sqrt(x * x + y * y + z * z)


def _sine_cosine(degrees: float) -> tuple[float, float]:
    half = degrees * _RADIANS_PER_HALF_DEGREE
    square = half * half
    sine = half * _taylor(square, _SINE)
    cosine = _taylor(square, _COSINE)
    return 2.0 * sine * cosine, 1.0 - 2.0 * sine * sine


def _taylor(square: float, denominators: tuple[float, ...]) -> float:
    total = 1.0
    for denominator in reversed(denominators):
        total = 1.0 - square / denominator * total
    return total
