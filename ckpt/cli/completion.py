"""``ckpt completion``: what a shell needs to complete targets, planners, budgets and options."""

from __future__ import annotations

from typing import Annotated

import typer

from ckpt.cli.run import note
from ckpt.cli.shared import words

# Bash takes the word at the cursor for what follows the last of COMP_WORDBREAKS, ":" and "=" among
# them, and replaces only that; but in quotes the whole word. What it replaces isn't quoted for it.
_BASH = """\
_ckpt_completion() {
    local breaks="$COMP_WORDBREAKS" k
    [[ ${COMP_WORDS[COMP_CWORD]} != [\\"\\']* ]] || breaks=
    mapfile -t COMPREPLY < <(LINE="${COMP_LINE:0:COMP_POINT}" BREAKS="$breaks" ckpt 2>/dev/null)
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != *[:=/] ]] || compopt -o nospace
    [[ -n $breaks ]] || return
    for k in "${!COMPREPLY[@]}"; do
        [[ ${COMPREPLY[k]} != *[[:space:]]* ]] || printf -v "COMPREPLY[k]" %q "${COMPREPLY[k]}"
    done
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
    set --local found (env LINE=(commandline -cp | string collect) ckpt 2>/dev/null)
    if count $found >/dev/null
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command ckpt --no-files --arguments '(__ckpt_complete)'
"""

SCRIPTS = {
    name: script.replace("LINE=", f"{words.LINE}=").replace("BREAKS=", f"{words.BREAKS}=")
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
