"""One agent is called, and what it says is checked. Nothing that it says or does gets past here as anything but a reply."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from pydantic import Field, ValidationError

from activities.agents.port import MAX_SUGGESTIONS, Agent, Arguments, Suggestion
from domain.proposals import FailureKind
from domain.values import Value

MAX_ERROR_CHARS = 200


class Reply(Value):
    """An agent's suggestions; or, where `failure` is set, why there are none."""

    suggestions: list[Suggestion] = Field(default_factory=list)
    failure: FailureKind | None = None
    error: str = ""


ABSTAINED = Reply()


class Nonsense(Exception):
    """An agent answered something that is not a list of suggestions; the text says what is wrong with it."""


def failed(kind: FailureKind, error: BaseException | str) -> Reply:
    """A reply that is a failure, told in one line that is short and fit to be written down as UTF-8."""
    text = error if isinstance(error, str) else _told(error)
    return Reply(failure=kind, error=" ".join(text.split())[:MAX_ERROR_CHARS].encode("utf-8", "replace").decode())


def reply_of(agent: Agent, arguments: Arguments) -> Reply:
    """Calls the agent. KeyboardInterrupt alone passes: in a process of ours it is a person's."""
    try:
        suggestions = _checked(agent(*arguments), arguments.positions)
        return Reply(suggestions=suggestions) if suggestions else ABSTAINED
    except Nonsense as error:
        return failed(FailureKind.NONSENSE, str(error))
    except (Exception, SystemExit) as error:
        return failed(FailureKind.RAISED, error)


def _checked(answer: Any, known: Mapping[str, float]) -> list[Suggestion]:
    if isinstance(answer, list) and not answer:
        return []
    if not isinstance(answer, Iterable) or isinstance(answer, str | bytes | Mapping):
        raise Nonsense(f"it returned a {type(answer).__name__}, not a list of suggestions ([] abstains)")
    items = list(islice(answer, MAX_SUGGESTIONS + 1))
    if len(items) > MAX_SUGGESTIONS:
        raise Nonsense(f"it made more than {MAX_SUGGESTIONS} suggestions")
    return [_suggestion(item, number, known) for number, item in enumerate(items, 1)]


def _told(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}" if str(error) else name
    except Exception:  # Its own text raised.
        return name


def _suggestion(item: Any, number: int, known: Mapping[str, float]) -> Suggestion:
    try:
        suggestion = Suggestion.model_validate(dict(item) if isinstance(item, Mapping) else item)
    except ValidationError as error:
        raise Nonsense(f"suggestion {number}: {_what_is_wrong(error)}") from None
    if suggestion.symbol not in known:
        raise Nonsense(f"suggestion {number}: {suggestion.symbol[:20]!a} is not a symbol of this desk")
    return suggestion


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
