"""Generate pages of the site from other files; mkdocs calls the two ``on_`` functions (``make docs``).

1. ``reference/options.md`` lists every option of every verb, read from the parser that the command line uses.
2. ``contributing.md`` and ``changelog.md`` are the files at the root of the repository, with adapted links.
3. Tables of settings in ``reference/cli.md`` are generated from :mod:`graphcut.settings`. ``python -m
   tools.docs_pages`` writes them between their two markers, and a test fails if they are outdated.
4. A page may link to those two files, so that the link works on a code host. On the site, it points to the page.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphcut import cli, settings

ROOT = Path(__file__).resolve().parents[1]
FROM_THE_TOP = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
"""Pages of the site -> files at the top of the repository."""

_TABLE = re.compile(r"(<!-- settings: (\w+)((?: \w+)*) -->)\n.*?\n?(<!-- end of settings -->)", re.DOTALL)
"""A class of settings, and those of it that the table leaves out."""
_LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages (a mkdocs event)."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to files at the root of the repository to their pages (a mkdocs event)."""
    up = "../" * page.file.src_uri.count("/")
    for name, source in FROM_THE_TOP.items():
        markdown = markdown.replace(f"]({up}../{source})", f"]({up}{name})")
    return markdown


def pages() -> dict[str, str]:
    """Return the generated pages: path on the site -> Markdown."""
    tops = {name: for_the_site((ROOT / source).read_text(encoding="utf-8")) for name, source in FROM_THE_TOP.items()}
    return {"reference/options.md": options(), **tops}


def for_the_site(text: str) -> str:
    """Adapt the links of a file at the root of the repository: pages lose their folder, other files their link."""

    def changed(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        if path.startswith("docs/"):
            return f"]({path.removeprefix('docs/')}{anchor})"
        for name, source in FROM_THE_TOP.items():
            if path == source:
                return f"]({name}{anchor})"
        return found[0]

    return _LINK.sub(changed, text)


def with_tables(text: str) -> str:
    """Return a page with its tables of settings regenerated (statement 3)."""

    def made(found: re.Match[str]) -> str:
        return f"{found[1]}\n{settings_table(found[2], found[3].split())}\n{found[4]}"

    return _TABLE.sub(made, text)


def settings_table(name: str, without: Sequence[str]) -> str:
    """Return the settings of a class that its parent classes do not have, as a table of options."""
    own = settings.table(getattr(settings, name))
    inherited = {} if name == "PlanSettings" else settings.table(settings.PlanSettings)
    rows = [
        f"| {spelling(setting, each)} | {escaped(each.help)} |"
        for setting, each in own.items()
        if setting not in inherited and setting not in without
    ]
    return "\n".join(["| option | meaning |", "|---|---|", *rows])


def spelling(name: str, each: settings.Setting) -> str:
    """Return the spelling of a setting on the command line."""
    value = each.metavar or ("|".join(map(str, each.choices)) if each.choices else "")
    flag = f"`{settings.flag_of(name)}{f' {value}' if value else ''}`".replace("|", "\\|")
    return f"{flag}, `{each.alias}`" if each.alias else flag


def options() -> str:
    """Return the page of all verbs and their options."""
    parts = [
        "# Options of every command",
        "This page is made from the program's own parser. `graphcut VERB --help` prints the same. "
        "[The command line](cli.md) explains exit codes, output and the less obvious options.",
    ]
    for verb, parser in verbs().items():
        parts.append(f"## {verb}")
        if parser.description:
            parts.append(escaped(parser.description))
        parts.append(f"```text\n{parser.format_usage().removeprefix('usage: ').rstrip()}\n```")
        parts += [table(group) for group in parser._action_groups if shown(group)]
        parts.append(f"```text\n{parser.epilog}\n```")
    return "\n\n".join(parts) + "\n"


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every verb."""
    (found,) = (action for action in cli._parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def shown(group: argparse._ArgumentGroup) -> list[argparse.Action]:
    """Return the options of a group that the help shows."""
    return [
        action
        for action in group._group_actions
        if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]


def table(group: argparse._ArgumentGroup) -> str:
    """Return a group of options as a table."""
    rows = [f"| {cell(action)} | {escaped(help_of(action))} |" for action in shown(group)]
    return "\n".join(
        [f"**{(group.title or 'options').capitalize()}**", "", "| argument | meaning |", "|---|---|", *rows]
    )


def cell(action: argparse.Action) -> str:
    """Return all spellings of an option, followed by its value."""
    value = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
    if not value and action.nargs != 0:
        value = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    return f"{names} `{value}`".strip() if value and action.nargs != 0 else names


def help_of(action: argparse.Action) -> str:
    """Return an option's help with its placeholders filled in."""
    values = {**vars(action), "prog": "graphcut"}
    return (action.help or "") % values


def escaped(text: str) -> str:
    """Keep text from being read as Markdown or HTML, inside a table too."""
    return re.sub(r"([|<>*_\[\]`])", r"\\\1", text)


if __name__ == "__main__":
    page = ROOT / "docs" / "reference" / "cli.md"
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
