"""Numbers and terms as they are printed, the same in the table, the figures and the summary."""

from collections.abc import Sequence
from typing import Any

NOTHING = "–"  # a number that does not exist, such as the confidence of wrong answers where none is wrong

_POINTS = {
    "first_success": "first success",
    "max_loss": "highest loss",
    "nearest": "nearest",
    "mixed": "each attack's own",
}


def point_in_words(point: str) -> str:
    """Return which of an attack's images the attacked figures are about."""
    return _POINTS.get(point, point)


def percent(value: float | None) -> str:
    """Return a fraction as a percentage with one decimal."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def hundredths(value: float | None) -> str:
    """Return a fraction in per cent with two decimals, as leaderboards do."""
    return NOTHING if value is None else f"{100 * value:.2f}"


def interval(rate: dict[str, Any]) -> str:
    """Return the 95 % interval of a rate, in per cent."""
    return f"{100 * rate['low']:.1f} – {100 * rate['high']:.1f}"


def number(value: float | None) -> str:
    """Return a figure with three decimals."""
    return NOTHING if value is None else _signed(f"{value:.3f}")


def radius(eps: float | None) -> str:
    """Return a radius as people write it: 8/255 where it is a few grey values, otherwise the number."""
    if eps is None:
        return ""
    grey = eps * 255
    return f"{round(grey)}/255" if 0 < grey < 33 and abs(grey - round(grey)) < 1e-6 else f"{eps:g}"


def radii(eps: float | Sequence[float] | None) -> str:
    """Return one radius, or of several the smallest and the largest."""
    if not isinstance(eps, Sequence):
        return radius(eps)
    return f"{radius(eps[0])} … {radius(eps[-1])}"


def largest(eps: float | Sequence[float] | None) -> float | None:
    """Return the radius that robust accuracy is quoted at."""
    return eps[-1] if isinstance(eps, Sequence) else eps


def threat_in_words(threat: dict[str, Any]) -> str:
    """Return a threat model in a few words, such as ``linf 8/255, top1``."""
    ball = "unbounded" if threat["norm"] == "unbounded" else f"{threat['norm']} {radii(threat['eps'])}"
    confined = f", {threat['region']}" if threat.get("region") else ""
    return f"{ball}{confined}, {threat['goal']}"


def seconds(value: float) -> str:
    """Return a duration: 3.2 s, 4 min 10 s, 2 h 5 min."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def points(value: float | None) -> str:
    """Return a difference of two fractions in percentage points, with its sign."""
    return NOTHING if value is None else _signed(f"{100 * value:+.1f}")


def probability(p: float | None) -> str:
    """Return a p-value with two significant digits; below 0.0001 only that."""
    if p is None:
        return NOTHING
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _signed(text: str) -> str:
    """Return a number with a minus that is as wide as the plus, and none before zero."""
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def stopped_in_words(stopped: dict[str, Any]) -> str:
    """Return how many images of a run with a stopping rule were judged, why it ended, and what was not run."""
    said = {"width": "the interval is at most {} wide", "below": "it is below {}", "above": "it is above {}"}
    rules = stopped["rule"]
    judged = f"{stopped['evaluated']} of {stopped['planned']} images in random order"
    if stopped["reached"] is None:
        asked = " or ".join(said[name].format(percent(value)) for name, value in rules.items())
        return f"robust accuracy: {judged}; that {asked} was never certain"
    why = said[stopped["reached"]].format(percent(rules[stopped["reached"]]))
    left = stopped["planned"] - stopped["evaluated"]
    return f"robust accuracy: {judged}, stopped since {why} with 95 % confidence; {left} images were not run"
