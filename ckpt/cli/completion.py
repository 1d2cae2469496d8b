"""``ckpt completion``: what a shell needs to complete targets, planners, budgets and options."""

from __future__ import annotations

from typing import Annotated

import typer

from ckpt.cli.run import note
from ckpt.cli.shared import words

# Bash takes the word at the cursor for what follows the last of COMP_WORDBREAKS, ":" and "=" among
# them, and replaces only that. So the whole line goes to ckpt, and of each answer what bash
# believes to be an earlier word is cut off.
_BASH = """\
_ckpt_completion() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    word="${line##*[[:space:]]}"
    local before="${word%"${word##*["$COMP_WORDBREAKS"]}"}"
    local IFS=$'\\n'
    COMPREPLY=( $(LINE="$line" ckpt 2>/dev/null) )
    COMPREPLY=( "${COMPREPLY[@]#"$before"}" )
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *[:=/] ]] || compopt -o nospace
}
complete -o default -F _ckpt_completion ckpt
"""

_ZSH = """\
#compdef ckpt
_ckpt() {
    local -a found
    found=( ${(f)"$(LINE="${(j: :)words[1,CURRENT]}" ckpt 2>/dev/null)"} )
    if (( $#found )); then
        compadd -S '' -- ${(M)found:#*[:=/]}
        compadd -- ${found:#*[:=/]}
    else
        _files
    fi
}
compdef _ckpt ckpt
"""

_FISH = """\
function __ckpt_complete
    env LINE=(commandline -cp | string collect) ckpt 2>/dev/null
end
complete --command ckpt --arguments '(__ckpt_complete)'
"""

SCRIPTS = {
    name: script.replace("LINE=", f"{words.LINE}=")
    for name, script in (("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH))
}
_INTO = {
    "bash": 'eval "$(ckpt completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(ckpt completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "ckpt completion fish | source   # in ~/.config/fish/config.fish",
}


def completion(
    shell: Annotated[
        str, typer.Argument(help="bash, zsh or fish.", autocompletion=words.shells)
    ] = "bash",
) -> None:
    """Print what a shell needs to complete targets, planners, budgets, options and models."""
    from ckpt.errors import UsageError
    from ckpt.text import unknown

    if shell not in SCRIPTS:
        raise UsageError(unknown("shell", shell, list(SCRIPTS)))
    print(SCRIPTS[shell], end="")
    note(f"next: {_INTO[shell]}")
