"""Generate the reference of ``meta.json`` in docs/reference from the records that declare it.

1. ``meta.schema.json`` is the JSON Schema.
2. ``manifest.md`` has a table between ``<!-- table of NAME -->`` and ``<!-- end of table -->`` for each definition NAME
   of the schema. Its keys, types and descriptions come from the schema.

Run ``python -m tools.manifest_tables`` after changing a record. A test fails if the files are outdated.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from graphcut.result.manifest_schema import ManifestDocument, json_schema

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
PAGE = REFERENCE / "manifest.md"
SCHEMA = REFERENCE / "meta.schema.json"

_TABLE = re.compile(r"(<!-- table of (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def schema_text() -> str:
    """Return the text of the schema file."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"


def page_text(page: str) -> str:
    """Return a page with regenerated tables."""
    schema = json_schema()
    definitions = {**schema["$defs"], ManifestDocument.__name__: schema}
    return _TABLE.sub(lambda found: f"{found[1]}{table(definitions[found[2]])}\n{found[3]}", page)


def table(definition: dict[str, Any]) -> str:
    """Return the keys of an object as a table."""
    required = definition.get("required", [])
    rows = [
        f"| `{key}` | {kind(each)}{'' if key in required else ', optional'} | {text(each)} |"
        for key, each in definition["properties"].items()
    ]
    return "\n".join(["| key | type | what it is |", "|---|---|---|", *rows])


def text(each: dict[str, Any]) -> str:
    """Return the description of a key."""
    return str(each.get("description", "")).replace("|", "\\|")


def kind(each: dict[str, Any]) -> str:
    """Return a type in a few words."""
    if "anyOf" in each or "oneOf" in each:
        return " or ".join(dict.fromkeys(kind(one) for one in each.get("anyOf") or each["oneOf"]))
    if "const" in each:
        return f'"{each["const"]}"'
    if "enum" in each:
        return " or ".join(f'"{one}"' for one in each["enum"])
    if "$ref" in each:
        return "object"
    named: str = each.get("type", "any")
    if named == "array":
        inner = each.get("prefixItems") or [each.get("items", {})]
        return f"array of {' and '.join(dict.fromkeys(kind(one) for one in inner))}"
    if named == "object" and isinstance(each.get("additionalProperties"), dict):
        return f"object of {kind(each['additionalProperties'])}"
    return named


def main() -> None:
    """Write both files."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
