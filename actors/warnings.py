"""Said once, not at every try: what is wrong goes to the log when it begins, when it changes and when it is over."""

from __future__ import annotations

import logging

from cluster.core.errors import ActorUnavailable


class Warnings:
    """For one actor. `about` names it in each line, as top-level keys of Ray's JSON logs."""

    def __init__(self, log: logging.Logger, **about: str) -> None:
        self._log = log
        self._about = about
        self._said: dict[str, str] = {}

    def say(self, what: str, error: Exception) -> None:
        """This goes wrong now. What mends itself, such as an actor that is being restarted, is of level INFO."""
        if self._said.get(what) != str(error):
            self._said[what] = str(error)
            level = logging.INFO if isinstance(error, ActorUnavailable) else logging.WARNING
            self._log.log(level, "%s: %s", what, error, extra=self._about)

    def over(self, what: str) -> None:
        """It goes well now."""
        if self._said.pop(what, None) is not None:
            self._log.info("%s: works again", what, extra=self._about)
