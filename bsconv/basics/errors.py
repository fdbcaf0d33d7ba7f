"""Other people's errors, as part of our one-line messages."""


def one_line(error: object, limit: int | None = 160) -> str:
    """What ``error`` says, in ``limit`` characters on one line; its type if it says nothing."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


def described(error: Exception) -> str:
    """Its type and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {one_line(lines[0], 200)}"
