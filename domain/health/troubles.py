"""Remembers which troubles are known, so that each is logged once, and once more when it is over.

A loop that retries every second would otherwise write the same line for as long as the database is down.
"""


class KnownTroubles:
    """Lasting troubles, one per subject. The subject may be left out if there is only one."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def begin(self, subject: str = "", text: str = "") -> bool:
        """Notes a trouble. True if it must be logged: the subject had none, or one with another text."""
        before = self._texts.get(subject)
        self._texts[subject] = text
        return before != text

    def end(self, subject: str = "") -> bool:
        """Notes that all is well. True if that must be logged: until now the subject had a trouble."""
        return self._texts.pop(subject, None) is not None

    def __contains__(self, subject: str) -> bool:
        return subject in self._texts
