"""Options with a unit: a bandwidth such as 10Gbit, and a time such as 50us."""

import re
from typing import Any

import click

PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
# "Gb" and "gb" are not among them, because they mean bits to some and bytes to others.
UNITS = {"bit": 1 / 8, "bit/s": 1 / 8, "bps": 1 / 8, "B": 1.0, "B/s": 1.0}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
NUMBER = r"(\d+\.?\d*|\.\d+)\s*"


class Bandwidth(click.ParamType["float"]):
    """A bandwidth in bits or bytes a second, as bytes a second."""

    name = "bandwidth"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(rf"{NUMBER}({'|'.join(PREFIXES)})({'|'.join(UNITS)})", value)
        result = float(match[1]) * PREFIXES[match[2]] * UNITS[match[3]] if match else 0.0
        if not result:
            self.fail(
                f"{value!r:.80}: expected a number above 0 with bit or B a second, such as 10Gbit, 100Mbit or 1GB/s",
                param, ctx,
            )  # fmt: skip
        return result


class Seconds(click.ParamType["float"]):
    """A time with a unit, in seconds. above_zero: whether 0 is an error."""

    name = "seconds"

    def __init__(self, above_zero: bool = False) -> None:
        self.above_zero = above_zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(rf"{NUMBER}({'|'.join(SECONDS)})", value)
        if match is None or (self.above_zero and not float(match[1])):
            least = " above 0" if self.above_zero else ""
            self.fail(f"{value!r:.80}: expected a number{least} with s, ms, us or ns, such as 50us or 0.9s", param, ctx)
        return float(match[1]) * SECONDS[match[2]]
