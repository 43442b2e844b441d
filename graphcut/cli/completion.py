"""``graphcut completion``: shell completion of verbs, options, files, recipes and layers.

1. shtab generates the script from the same parser that reads the command line.
2. Layer names come from the ONNX file on the command line. The file is untrusted, so only names of harmless characters
   are offered, and no shell evaluates them.
"""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphcut.cli.console import Console
from graphcut.errors import UsageError

EXAMPLES = (
    "graphcut completion bash > ~/.local/share/bash-completion/completions/graphcut",
    "graphcut completion zsh > ~/.zfunc/_graphcut",
    "graphcut completion fish > ~/.config/fish/completions/graphcut.fish",
)
SHELLS = ("bash", "zsh", "fish")
_HARMLESS = re.compile(r"[\w./:@+-]+", re.ASCII)
_LAYERS = ("--cuts", "--pin", "--avoid", "--why")

_BASH = r"""
_graphcut_model() {
  local word
  for word in "${COMP_WORDS[@]}"; do [[ $word == *.onnx && -f $word ]] && { printf '%s' "$word"; return; }; done
}
_graphcut_layers() {
  local model head name
  model="$(_graphcut_model)"
  [[ -n $model ]] || return 0
  [[ $1 == *,* ]] && head="${1%,*}," || head=""
  while IFS= read -r name; do
    [[ $head$name == "$1"* ]] && printf '%s\n' "$head$name"
  done < <("${COMP_WORDS[0]}" completion --layers "$model" 2>/dev/null)
}
_graphcut_model_file() {
  compgen -W "@RECIPES@" -- "$1"
  compgen -f -- "$1"
}
"""
_BASH_WORDS = r"""
# Bash cuts words at colons, which names of tensors have: they are put together first, and what stands on the line
# before the last colon is taken off the answers.
_graphcut() {
  local -a words=()
  local at last=-1 current=0
  for at in "${!COMP_WORDS[@]}"; do
    if (( last >= 0 )) && [[ ${COMP_WORDS[at]} == :* || ${words[last]} == *: ]]; then
      words[last]+="${COMP_WORDS[at]}"
    else
      words[++last]="${COMP_WORDS[at]}"
    fi
    (( at == COMP_CWORD )) && current=$last
  done
  local COMP_CWORD=$current COMP_WORDS=("${words[@]}")
  @FUNCTION@
  at="${words[current]}"
  [[ $at == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${at%:*}:"}")
  return 0
}
complete -o bashdefault -F _graphcut graphcut
"""
_ZSH = r"""
_graphcut_layers() {
  local word model
  for word in $words; do [[ $word == *.onnx && -f $word ]] && model=$word; done
  [[ -n $model ]] || return 0
  local -a names
  names=("${(@f)$($words[1] completion --layers $model 2>/dev/null)}")
  _values -s , layer "${(@)names//:/\\:}"
}
_graphcut_model_file() {
  compadd -- @RECIPES@
  _files
}
"""
_FISH = r"""
function _graphcut_layers
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    set -l head (string match -r '.*,' -- $token)
    for word in $words
        if string match -q '*.onnx' -- $word; and test -f $word
            for name in ($words[1] completion --layers $word 2>/dev/null)
                echo "$head$name"
            end
        end
    end
end
function _graphcut_model_file
    printf '%s\n' @LINES@
    __fish_complete_path (commandline -ct)
end
"""


def add(verbs: Any) -> ArgumentParser:
    """Declare the verb."""
    parser: ArgumentParser = verbs.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print a script with which bash, zsh or fish completes verbs, options, files, recipes and, of an "
        ".onnx file on the line, the names of layers.",
    )
    parser.add_argument("shell", metavar="SHELL", nargs="?", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    parser.add_argument(
        "--layers", metavar="FILE.onnx", type=Path, help="print the layer names of a model (used by the scripts)"
    )
    return parser


def run(arguments: Namespace, console: Console) -> int:
    """Print the script, or the names."""
    if arguments.layers is not None:
        from graphcut.graph import quick_names

        for name in quick_names.tensor_names(arguments.layers):
            if _HARMLESS.fullmatch(name):
                console.line(name)
        return 0
    if arguments.shell is None:
        raise UsageError("no shell is named", f"give {', '.join(SHELLS[:-1])} or {SHELLS[-1]}")
    console.line(script(arguments.parser, arguments.shell))
    return 0


def script(parser: ArgumentParser, shell: str) -> str:
    """Return the completion script of a shell for a parser."""
    import shtab

    from graphcut import recipes

    names = " ".join(recipes.names())
    preamble = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
    filled = {name: text.replace("@RECIPES@", names).replace("@LINES@", names) for name, text in preamble.items()}
    layers = {"bash": "_graphcut_layers", "zsh": "_graphcut_layers", "fish": "(_graphcut_layers)"}
    model = {"bash": "_graphcut_model_file", "zsh": "_graphcut_model_file", "fish": "(_graphcut_model_file)"}
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):
            action.help = None  # shtab leaves out what the help shows elsewhere
        elif set(action.option_strings) & set(_LAYERS):
            action.complete = layers  # type: ignore[attr-defined]
        elif action.dest == "model":
            action.complete = model  # type: ignore[attr-defined]
        elif action.type is Path or action.dest in ("calibration", "validation", "inputs", "held_out"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    made = str(shtab.complete(parser, shell, root_prefix="graphcut", preamble=filled[shell]))
    return f"{made}\n{_BASH_WORDS.replace('@FUNCTION@', '_shtab_graphcut')}" if shell == "bash" else made


def _actions(parser: ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)
