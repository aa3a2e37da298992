"""Calls one agent and checks its answer. Whatever the agent says or does, only a `Reply` leaves this module."""

import contextlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic import Field, ValidationError

from activities.agents.port import MAX_SUGGESTIONS, Agent, Arguments, Suggestion
from domain.trading.proposals import FailureKind
from domain.values import Value, assembled

MAX_ERROR_CHARS = 200


class Reply(Value):
    """An agent's suggestions; or, if `failure` is set, why there are none."""

    suggestions: list[Suggestion] = Field(default_factory=list)
    failure: FailureKind | None = None
    error: str = ""


ABSTAINED = Reply()


class Nonsense(Exception):
    """An agent answered something that is not a list of suggestions; the text says what is wrong with it."""


def failed(kind: FailureKind, error: BaseException | str) -> Reply:
    """A failure as a reply: one short line that can be encoded as UTF-8."""
    text = error if isinstance(error, str) else type(error).__name__
    if not isinstance(error, str):
        with contextlib.suppress(Exception):  # Its own text may raise.
            text = f"{text}: {error}" if str(error) else text
    return Reply(failure=kind, error=" ".join(text.split())[:MAX_ERROR_CHARS].encode("utf-8", "replace").decode())


def reply_of(agent: Agent, arguments: Arguments) -> Reply:
    """Calls the agent. Only KeyboardInterrupt passes through: in our own process, a person causes it."""
    try:
        answer: Any = agent(*arguments)
        if isinstance(answer, list) and not answer:
            return ABSTAINED
        if not isinstance(answer, list) and (
            not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping)
        ):
            raise Nonsense(f"it returned a {type(answer).__name__}, not a list of suggestions ([] abstains)")
        items = list(islice(answer, MAX_SUGGESTIONS + 1))
        if len(items) > MAX_SUGGESTIONS:
            raise Nonsense(f"it made more than {MAX_SUGGESTIONS} suggestions")
        suggestions = [_suggestion(item, number, arguments.positions) for number, item in enumerate(items, 1)]
        return (
            assembled(Reply, {"suggestions": suggestions, "failure": None, "error": ""}) if suggestions else ABSTAINED
        )
    except Nonsense as error:
        return failed(FailureKind.NONSENSE, str(error))
    except (Exception, SystemExit) as error:
        return failed(FailureKind.RAISED, error)


def _suggestion(item: Any, number: int, known: Mapping[str, float]) -> Suggestion:
    try:
        is_mapping = not isinstance(item, Suggestion) and isinstance(item, Mapping)
        suggestion = Suggestion.model_validate(dict(item) if is_mapping else item)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        wrong = f"{where}: {first['msg']}" if where else first["msg"]
        raise Nonsense(f"suggestion {number}: {wrong}") from None
    if suggestion.symbol not in known:
        raise Nonsense(f"suggestion {number}: {suggestion.symbol[:20]!a} is not a symbol of this desk")
    return suggestion
