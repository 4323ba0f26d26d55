"""Arithmetic on printed figures: what a text can stand for, and what follows from it, in exact fractions."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import NamedTuple, Self

Read = Callable[[str], "Range"]


class Range(NamedTuple):
    """All numbers that a printed figure can stand for."""

    low: Fraction
    high: Fraction

    @classmethod
    def exactly(cls, number: float | Fraction) -> Self:
        """One number."""
        return cls(Fraction(number), Fraction(number))

    def plus(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.high + other.high)

    def minus(self, other: "Range") -> "Range":
        return Range(self.low - other.high, self.high - other.low)

    def times(self, other: "Range") -> "Range":
        products = [one * two for one in self for two in other]
        return Range(min(products), max(products))

    def over(self, other: "Range") -> "Range":
        quotients = [one / two for one in self for two in other]
        return Range(min(quotients), max(quotients))

    def meets(self, other: "Range") -> bool:
        return self.low <= other.high and other.low <= self.high


def add(*addends: Range) -> Range:
    """Their sum."""
    total = Range.exactly(0)
    for addend in addends:
        total = total.plus(addend)
    return total


def machine(text: str) -> Range:
    """A figure for programs: the nearest double, in its shortest text; each of the two is good to half the double's last unit."""
    exact = Fraction(text)
    if not set(text) & set(".e"):
        return Range.exactly(exact)
    unit = Fraction(math.ulp(float(text)))
    return Range(exact - unit, exact + unit)


def screen(text: str) -> Range:
    """A figure for people: good to half a unit of the last digit shown; commas part the thousands."""
    digits, _, exponent = text.replace(",", "").partition("e")
    places = len(digits.partition(".")[2])
    unit = Fraction(10) ** (int(exponent or 0) - places)
    exact = Fraction(text.replace(",", ""))
    return Range(exact - unit / 2, exact + unit / 2)


def seconds_between(start: str, end: str) -> Range:
    """From one moment to another, both in ISO 8601 to the microsecond."""
    apart = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    micros = (apart.days * 86_400 + apart.seconds) * 10**6 + apart.microseconds
    return Range.exactly(Fraction(micros, 10**6))


class Rule(NamedTuple):
    """A figure that follows from others on the same screen, row or line; no denominator may be zero."""

    target: str
    inputs: Sequence[str]
    formula: Callable[..., Range]
    denominator: str | None = None


def product_off(whole: Range, rate: Range, time: Range) -> Range:
    """What is left of a whole without a rate over a time."""
    return whole.minus(rate.times(time))


def quotient(target: str, numerator: str, denominator: str) -> Rule:
    """One over another."""
    return Rule(target, (numerator, denominator), Range.over, denominator)


def sum_of(target: str, *addends: str) -> Rule:
    """One and another."""
    return Rule(target, addends, add)


def disagreements(
    where: str, figures: Mapping[str, str], rules: Sequence[Rule], read: Read, *, complete: bool = True
) -> Iterator[str]:
    """Figures that are not what follows from those beside them; `complete` wants every figure that can follow."""
    for rule in rules:
        texts = [figures.get(name, "") for name in rule.inputs]
        shown = figures.get(rule.target, "")
        if "" in texts or (rule.denominator and read(figures[rule.denominator]).low <= 0):
            if shown and complete:
                yield f"{where}: {rule.target} is {shown}, though it cannot follow from {_named(rule, texts)}"
            continue
        expected = rule.formula(*map(read, texts))
        if not shown and complete:
            yield f"{where}: {rule.target} is not shown, though {_named(rule, texts)}"
        if shown and not read(shown).meets(expected):
            yield f"{where}: {rule.target} is {shown}, by {_named(rule, texts)} it is {float(expected.low)!r}"


def _named(rule: Rule, texts: Sequence[str]) -> str:
    return ", ".join(f"{name} {text or 'NULL'}" for name, text in zip(rule.inputs, texts, strict=True))
