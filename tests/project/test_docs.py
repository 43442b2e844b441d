"""Links in README and docs lead somewhere, the site builds, and pages that are made from code hold all of it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tools import docs_pages

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Anchors that headings of a page get: lower case, punctuation dropped, spaces to hyphens."""
    titles = re.findall(r"^#+ +(.+?) *$", _FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """Links of a page that lead nowhere in the repository."""
    found = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue  # elsewhere
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A title: so\n[good](#a-title-so) [gone](gone.md) [no anchor](page.md#b) [web](https://x.y)\n")
    assert broken(page) == ["gone.md", "page.md#b"]


def test_every_page_is_in_the_menu_of_the_site() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    here = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert listed == here | set(docs_pages.pages())


def test_the_tables_of_settings_are_current() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert len(re.findall(r"<!-- settings: ", text)) == 2
    assert docs_pages.with_tables(text) == text, "run python -m tools.docs_pages"
    changed = text.replace("| `--budget SIZE` |", "| `--size BUDGET` |")
    assert changed != text
    assert docs_pages.with_tables(changed) == text


def test_the_page_of_options_has_every_option_with_its_help() -> None:
    page = docs_pages.pages()["reference/options.md"]
    for verb, parser in docs_pages.verbs().items():
        section = page.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
        for action in parser._actions:
            for option in set(action.option_strings) - {"-h", "--help"}:
                assert f"`{option}`" in section, f"{verb} {option}"
                assert action.help, f"{verb} {option} says nothing in --help"


def test_links_from_the_top_are_changed_for_the_site() -> None:
    text = docs_pages.for_the_site("[a](docs/how-to/running.md#b) [c](CHANGELOG.md) [d](https://x.y) [e](#f)")
    assert text == "[a](how-to/running.md#b) [c](changelog.md) [d](https://x.y) [e](#f)"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the docs extra (`make docs`)")
def test_the_site_builds_and_no_page_asks_another_server(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    fetched = re.compile(r"""<(?:script|img|link|iframe)[^>]*(?:src|href)=["'](?:https?:)?//[^"']*["']""")
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 10
    assert {page.name: found for page in pages if (found := fetched.findall(page.read_text(encoding="utf-8")))} == {}


_NAMED = re.compile(r"(?<![\w/.])(?:docs|graphcut|tools|tests)/[\w/-]+\.(?:md|py|sh)\b")


def missing(text: str) -> list[str]:
    """Files of the repository that a text names and that are not there."""
    return sorted({name for name in _NAMED.findall(text) if not (ROOT / name).exists()})


def test_files_that_pages_and_the_package_name_exist() -> None:
    texts = [*PAGES, *(path for room in ("graphcut", "tools") for path in sorted((ROOT / room).rglob("*.py")))]
    gone = {path.relative_to(ROOT).as_posix(): missing(path.read_text(encoding="utf-8")) for path in texts}
    assert {path: names for path, names in gone.items() if names} == {}


def test_a_file_that_is_gone_is_found() -> None:
    gone = "docs/" + "gone.md"
    assert missing(f"see {gone}, README.md, docs/glossary.md and coral.ai/docs/x.md") == [gone]
