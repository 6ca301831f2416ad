"""Where people live, shop and travel: a fixed list of cities.

Belongs here: places and the currency of a country. Does not belong here: people or merchants.
"""

from __future__ import annotations

import numpy as np

# country, degrees north, degrees east, weight among homes (0: only visited), weight among journeys
_CITIES: tuple[tuple[str, float, float, float, float], ...] = (
    ("DE", 52.52, 13.40, 3.7, 2.0),
    ("DE", 53.55, 9.99, 1.9, 1.0),
    ("DE", 48.14, 11.58, 1.5, 1.5),
    ("DE", 50.94, 6.96, 1.1, 0.8),
    ("FR", 48.86, 2.35, 5.0, 4.0),
    ("FR", 45.76, 4.84, 1.3, 0.8),
    ("FR", 43.30, 5.37, 1.2, 1.2),
    ("ES", 40.42, -3.70, 3.0, 2.0),
    ("ES", 41.39, 2.17, 1.9, 3.0),
    ("ES", 37.39, -5.98, 0.7, 1.0),
    ("IT", 41.90, 12.50, 2.6, 3.0),
    ("IT", 45.46, 9.19, 1.6, 1.5),
    ("IT", 40.85, 14.27, 0.9, 1.0),
    ("NL", 52.37, 4.90, 1.0, 2.0),
    ("NL", 51.92, 4.48, 0.7, 0.5),
    ("BE", 50.85, 4.35, 1.2, 1.0),
    ("AT", 48.21, 16.37, 1.7, 1.5),
    ("IE", 53.35, -6.26, 1.2, 1.0),
    ("PT", 38.72, -9.14, 1.0, 2.0),
    ("PT", 41.16, -8.63, 0.5, 0.8),
    ("GB", 51.51, -0.13, 4.5, 4.0),
    ("GB", 53.48, -2.24, 1.0, 0.6),
    ("GB", 55.86, -4.25, 0.7, 0.6),
    ("CH", 47.37, 8.54, 0.6, 0.8),
    ("CH", 46.20, 6.14, 0.3, 0.5),
    ("GR", 37.98, 23.73, 0.0, 1.6),
    ("HR", 43.51, 16.44, 0.0, 1.0),
    ("CZ", 50.08, 14.44, 0.0, 1.2),
    ("PL", 52.23, 21.01, 0.0, 0.8),
    ("SE", 59.33, 18.07, 0.0, 0.7),
    ("DK", 55.68, 12.57, 0.0, 0.7),
    ("TR", 41.01, 28.98, 0.0, 1.2),
    ("TR", 36.90, 30.70, 0.0, 1.2),
    ("MA", 31.63, -7.99, 0.0, 0.7),
    ("AE", 25.20, 55.27, 0.0, 0.7),
    ("US", 40.71, -74.01, 0.0, 1.2),
    ("US", 25.76, -80.19, 0.0, 0.6),
    ("MX", 19.43, -99.13, 0.0, 0.4),
    ("BR", -23.55, -46.63, 0.0, 0.4),
    ("TH", 13.76, 100.50, 0.0, 0.8),
    ("SG", 1.35, 103.82, 0.0, 0.4),
    ("JP", 35.68, 139.69, 0.0, 0.5),
)

COUNTRIES: tuple[str, ...] = tuple(dict.fromkeys(city[0] for city in _CITIES))
CURRENCIES: tuple[str, ...] = ("EUR", "GBP", "CHF")

CITIES = len(_CITIES)
CITY_COUNTRY = np.array([COUNTRIES.index(city[0]) for city in _CITIES])
CITY_LATITUDE = np.array([city[1] for city in _CITIES])
CITY_LONGITUDE = np.array([city[2] for city in _CITIES])
HOME_WEIGHT = np.array([city[3] for city in _CITIES])
JOURNEY_WEIGHT = np.array([city[4] for city in _CITIES])
CITY_UTC_OFFSET_HOURS = np.round(CITY_LONGITUDE / 15).astype(np.int64)
HOME_COUNTRIES = np.unique(CITY_COUNTRY[HOME_WEIGHT > 0])
COUNTRY_CURRENCY = np.array([{"GB": 1, "CH": 2}.get(country, 0) for country in COUNTRIES])
"""Index into CURRENCIES of the money that a country's cards are billed in."""


def cities_of(countries: tuple[str, ...]) -> np.ndarray:
    """Indices of the cities that lie in the named countries."""
    return np.flatnonzero(np.isin(CITY_COUNTRY, [COUNTRIES.index(country) for country in countries]))
