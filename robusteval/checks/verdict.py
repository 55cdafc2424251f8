"""What a check says."""

from typing import Literal

Check = dict[str, str]


def verdict(name: str, said: Literal["pass", "warn", "fail", "skipped"], summary: str, advice: str = "") -> Check:
    """Return a check as it stands in results.json: id, verdict, one sentence why, and one what to do about it."""
    return {"id": name, "verdict": said, "summary": summary, "advice": advice}
