"""What others chose, shown to people."""


def printable(text: str) -> str:
    """On one line, and nothing that a terminal would obey or a journal take for another line."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text
    )
