"""Print what makes a shell complete commands and options.

bash: eval "$(bsconv completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit;
fish: bsconv completion fish > ~/.config/fish/completions/bsconv.fish
"""

from __future__ import annotations

import argparse
from importlib import import_module

HELP = "print what makes a shell complete commands and options"
BASH = """_bsconv() {{
  local words current="${{COMP_WORDS[COMP_CWORD]}}"
  case "$COMP_CWORD:${{COMP_WORDS[1]}}" in
    1:*) words="{commands}" ;;
{cases}
  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    *) [ "$COMP_CWORD" = 1 ] && COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
  esac
}}
complete -o default -F _bsconv bsconv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])


def run(arguments: argparse.Namespace) -> int:
    commands = import_module("bsconv.__main__").COMMANDS
    options = {}
    for name, module in commands.items():
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        options[name] = [word for each in parser._actions for word in each.option_strings]
    if arguments.shell == "fish":
        for name, words in options.items():
            print(
                f"complete -c bsconv -n __fish_use_subcommand -a {name} -d '{commands[name].HELP}'"
            )
            for word in (word for word in words if word.startswith("--")):
                where = f"'__fish_seen_subcommand_from {name}'"
                print(f"complete -c bsconv -n {where} -l {word[2:]}")
        return 0
    if arguments.shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    cases = "\n".join(
        f'    *:{name}) words="{" ".join(words)}" ;;' for name, words in options.items()
    )
    print(BASH.format(commands=" ".join(options), cases=cases))
    return 0
