"""Numbers as people read them."""

from __future__ import annotations


def bytes_text(count: int | None) -> str:
    """A byte count; "unknown" for None."""
    if count is None:
        return "unknown"
    if count < 1024:
        return f"{count} B"
    power = min(4, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def age_text(seconds: float | None) -> str:
    """How long ago; "never" for None."""
    if seconds is None:
        return "never"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit} ago"
    return f"{max(0.0, seconds):.0f}s ago"
