"""Numbers and durations as people read them."""


def compact(value: float, form: str = "") -> str:
    """A number in a format; by its power of ten where that takes more than 12 characters, as perplexities that diverge do."""
    text = format(value, form)
    return text if len(text) <= 12 else format(value, ".2e")


def clock(seconds: float) -> str:
    """Seconds as people read them: 1:15, 1:06:40, 3 d 4 h; a question mark for what is negative or not finite."""
    if not 0 <= seconds < float("inf"):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
