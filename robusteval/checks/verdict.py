"""What a check says."""

from typing import Literal

Check = dict[str, str]


def verdict(name: str, said: Literal["pass", "warn", "fail", "skipped"], summary: str) -> Check:
    """Return a check as it stands in results.json: id, verdict, and one sentence on why and what to do."""
    return {"id": name, "verdict": said, "summary": summary}
