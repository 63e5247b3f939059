"""Names and things that all four domains draw from, so that no single word gives a domain away."""

from __future__ import annotations

from typing import TypedDict


class Record(TypedDict):
    """One training record in Alpaca's layout; ``domain`` is the label that profiles are checked against."""

    instruction: str
    input: str
    output: str
    domain: str


NAMES = (
    "Ada", "Ben", "Carla", "David", "Elena", "Farid", "Grace", "Hugo", "Petra", "Jonas", "Kemal", "Lucia", "Mia",
    "Noah", "Olga", "Pablo", "Quinn", "Rosa", "Samir", "Tess", "Uma", "Victor", "Wanda", "Yusuf", "Zoe",
)  # fmt: skip

THINGS = (
    "apples", "books", "pencils", "stamps", "marbles", "cookies", "tickets", "flowers", "shells", "cards", "stickers",
    "oranges", "bottles", "candles", "postcards", "coins", "eggs", "buttons", "balloons", "stones",
)  # fmt: skip

PLACES = ("market", "school", "library", "kitchen", "garden", "station", "office", "museum", "beach", "bakery")

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
