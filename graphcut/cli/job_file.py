"""The job file of a split: its options as TOML, to be repeated with ``graphcut split --config job.toml``.

1. A key is the name of a setting (:mod:`graphcut.settings`), or of another option with underscores: ``budget``,
   ``calibration``, ``mean``. ``model`` is MODEL. A value is written as on the command line, or as TOML's own number,
   boolean or list.
2. What an option on the command line says replaces what the file says. Unknown keys are refused.
3. Paths mean what they would mean on the command line: relative ones start at the working folder.
4. ``split`` writes the file into its result: what was given, in the order of the help, without the options that change
   no artifact (``NOT_KEPT``). It holds no path that the user did not write; the same options give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from argparse import Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from graphcut.cli.options import Parser
from graphcut.errors import UsageError
from graphcut.regular_file import text_of
from graphcut.settings import flag_of

NOT_KEPT = frozenset({"cache", "config", "force", "help", "jobs", "json", "output", "quiet", "reuse", "width"})
"""Options of the run and not of the job: where results go, and how fast and how loud they are made."""

Words = dict[str, list[str]]
"""Option (its name in the namespace) -> its values, one entry for each time it was given."""


class JobParser(Parser):
    """The parser of a verb; where that takes ``--config FILE``, the whole job as TOML is ``job`` of what it returns."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._words: Words = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Take from the file of ``--config`` what the command line does not say."""
        self._words = {}
        found, rest = super().parse_known_args(args, namespace)
        if not hasattr(found, "config"):
            return found, rest
        given = dict(self._words)
        if found.config is not None:
            told = _read(found.config)
            kept = {action.dest: action for action in self._actions if action.dest not in NOT_KEPT}
            _refuse_unknown(found.config, told, kept)
            for name, value in told.items():
                switched = isinstance(kept[name].default, bool) and getattr(found, name) != kept[name].default
                if name not in given and not switched:
                    setattr(found, name, self._value(kept[name], value, f"{found.config}: {name}"))
                    given[name] = self._words.get(name, [])
        found.job = self._written(found, given)
        return found, rest

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Keep what is written behind each option, beside what it means."""
        words = [word for word in arg_strings if word != "--"]
        if words:
            before = self._words.get(action.dest, []) if isinstance(action, argparse._AppendAction) else []
            self._words[action.dest] = [*before, *words]
        return super()._get_values(action, arg_strings)

    def _value(self, action: argparse.Action, value: Any, where: str) -> Any:
        """Read a value of the file as the option reads its word."""
        if isinstance(action.default, bool):
            if not isinstance(value, bool):
                raise UsageError(f"{where} is {value!r}", "write true or false")
            return value
        repeated = isinstance(action, argparse._AppendAction)
        try:
            words = [_word(each) for each in _items(value)] if repeated else [_word(value)]
            read = [self._get_values(action, [word]) for word in words]
        except (argparse.ArgumentError, UsageError) as error:
            raise UsageError(f"{where}: {error}") from error
        return read if repeated else read[0]

    def _written(self, found: Namespace, given: Words) -> str:
        lines = []
        for action in self._actions:
            value = getattr(found, action.dest, None)
            if action.dest in NOT_KEPT:
                continue
            if isinstance(action.default, bool):
                if value != action.default:
                    lines.append(f"{action.dest} = {str(value).lower()}")
            elif isinstance(action, argparse._AppendAction) and given.get(action.dest):
                lines.append(f"{action.dest} = [{', '.join(map(_quoted, given[action.dest]))}]")
            elif given.get(action.dest):
                lines.append(f"{action.dest} = {_quoted(given[action.dest][-1])}")
        return "\n".join(["# Repeat this with: graphcut split --config job.toml -o OUT", *lines, ""])


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text_of(path))
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error})", "give a job file") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a job file: {error}", "write it as TOML") from error


def _refuse_unknown(path: Path, told: Mapping[str, Any], kept: Mapping[str, argparse.Action]) -> None:
    for name in told:
        if name in kept:
            continue
        if name in NOT_KEPT:
            raise UsageError(f"{path}: {name} is no part of a job", f"give {flag_of(name)} on the command line")
        flags = {
            option.lstrip("-").replace("-", "_"): dest for dest, each in kept.items() for option in each.option_strings
        }
        close = get_close_matches(name.replace("-", "_"), [*kept, *flags], n=1)
        way_out = f"did you mean {flags.get(close[0], close[0])}?" if close else "its keys are the names of settings"
        raise UsageError(f"{path}: there is no setting {name}", way_out)


def _items(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return [f"{name}={_word(each)}" for name, each in value.items()]
    return value if isinstance(value, list) else [value]


def _word(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(_word(each).replace(",", "\\,") for each in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{value!r} is no value", "write text, a number or a list")
    return str(value)


def _quoted(word: str) -> str:
    """Text as a TOML string.

    Raises:
        UsageError: it is not Unicode, as TOML is.
    """
    if not word.isprintable() and any(0xD800 <= ord(each) < 0xE000 for each in word):
        raise UsageError(f"{word!r} is not Unicode and cannot stand in the job file", "rename it")
    return json.dumps(word, ensure_ascii=False).replace("\x7f", "\\u007f")
