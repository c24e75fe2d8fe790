"""Exhaustive exploration: every state that some sequence of actions leads to, each seen once.

A state is an object with all that it refers to. Frozen dataclasses, pydantic models and functions
count as values and are shared; everything else is copied for each branch. Two states are the same
if they differ only in the names of their ids, which are numbered in the order of their appearance.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import cache, lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")
AN_ID = re.compile(r"(?:call|conv|item|resp)_\d+")


@cache
def _is_value(kind: type) -> bool:
    """Whether things of this type never change."""
    atoms = (str, int, float, bytes, frozenset, range, type, types.NoneType, BaseModel)
    functions = (types.FunctionType, types.BuiltinFunctionType)
    if issubclass(kind, (*atoms, *functions)):
        return True
    return is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def fork(thing: T) -> T:
    """A copy that shares only values with the original."""
    copied: T = _fork(thing, {})
    return copied


def _fork(thing: Any, memo: dict[int, Any]) -> Any:
    if _is_value(type(thing)):
        return thing
    if id(thing) in memo:
        return memo[id(thing)]
    new: Any
    match thing:
        case tuple():
            return tuple(_fork(one, memo) for one in thing)
        case list():
            new = memo[id(thing)] = []
            new.extend(_fork(one, memo) for one in thing)
        case set():
            new = memo[id(thing)] = set(thing)
        case dict():
            new = memo[id(thing)] = {}
            new.update((key, _fork(value, memo)) for key, value in thing.items())
        case types.MethodType():
            return types.MethodType(thing.__func__, _fork(thing.__self__, memo))
        case _:
            new = memo[id(thing)] = type(thing).__new__(type(thing))
            for name, value in vars(thing).items():
                new.__dict__[name] = _fork(value, memo)
    return new


def shape(thing: object, leave_out: frozenset[str] = frozenset()) -> str:
    """A text that is equal for equal states; of the attributes in `leave_out` it says nothing."""
    text: list[str] = []
    _describe(thing, text, set(), leave_out)
    names: dict[str, str] = {}
    return AN_ID.sub(lambda m: names.setdefault(m[0], f"#{len(names)}"), "\n".join(text))


class _Same:
    """A value that is told from others by being the very same object."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.thing is other.thing


@lru_cache(maxsize=10_000)
def _model_text(model: _Same) -> str:
    return repr(model.thing)


def _text_of(thing: object) -> str:
    return _model_text(_Same(thing)) if isinstance(thing, BaseModel) else repr(thing)


def _describe(thing: Any, text: list[str], seen: set[int], leave_out: frozenset[str]) -> None:
    if _is_value(type(thing)):
        if not isinstance(thing, types.FunctionType | types.BuiltinFunctionType):
            text.append(_text_of(thing))
        return
    match thing:
        case set():
            text.append(repr(sorted(thing)))
        case list() | tuple():
            text.append(f"[{len(thing)}")
            for one in thing:
                _describe(one, text, seen, leave_out)
        case dict():
            text.append(f"{{{len(thing)}")
            for key, value in thing.items():
                text.append(repr(key))
                _describe(value, text, seen, leave_out)
        case types.MethodType():
            pass
        case _ if id(thing) in seen:
            text.append("seen")
        case _:
            seen.add(id(thing))
            for name, value in vars(thing).items():
                if name not in leave_out:
                    text.append(name)
                    _describe(value, text, seen, leave_out)


@dataclass
class Explored:
    """What an exploration went through."""

    states: int = 0
    steps: int = 0


def explore(
    start: T,
    actions: Mapping[str, Callable[[T], object]],
    depth: int,
    check: Callable[[T], None],
    leave_out: frozenset[str] = frozenset(),
) -> Explored:
    """Do every sequence of up to `depth` actions; `check` each state once, on a copy.

    Args:
        start: the first state.
        actions: what can be done, by name; each changes the state that it is given.
        depth: actions in the longest sequence.
        check: raises AssertionError about a state that may not be.
        leave_out: names of attributes that tell no states apart, since nothing depends on them.

    Raises:
        AssertionError: of an action or of `check`; its note tells the sequence that leads there.
    """
    explored = Explored()
    seen: set[str] = set()
    front: list[tuple[T, tuple[str, ...]]] = [(start, ())]
    for left in range(depth, -1, -1):
        following: list[tuple[T, tuple[str, ...]]] = []
        for state, path in front:
            explored.states += 1
            with _told(path):
                check(fork(state))
            for name, action in actions.items() if left else ():
                explored.steps += 1
                after = fork(state)
                with _told((*path, name)):
                    action(after)
                if (known := shape(after, leave_out)) not in seen:
                    seen.add(known)
                    following.append((after, (*path, name)))
        front = following
    return explored


@contextmanager
def _told(path: tuple[str, ...]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note("after: " + ", ".join(path))
        raise
