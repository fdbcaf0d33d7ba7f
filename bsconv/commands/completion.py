"""Print what makes a shell complete commands and options.

bash: eval "$(bsconv completion bash)" in ~/.bashrc; zsh: the same in ~/.zshrc, after compinit;
fish: bsconv completion fish > ~/.config/fish/completions/bsconv.fish
"""

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


def run(arguments: argparse.Namespace) -> None:
    commands = import_module("bsconv.__main__").COMMANDS
    if arguments.shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    cases = []
    for name, module in commands.items():
        parser = argparse.ArgumentParser()
        module.add_arguments(parser)
        options = [word for action in parser._actions for word in action.option_strings]
        cases.append(f'    *:{name}) words="{" ".join(options)}" ;;')
        if arguments.shell == "fish":
            print(f"complete -c bsconv -n __fish_use_subcommand -f -a {name} -d '{module.HELP}'")
            where = f"'__fish_seen_subcommand_from {name}'"
            for option in options:
                if option.startswith("--"):
                    print(f"complete -c bsconv -n {where} -l {option[2:]}")
    if arguments.shell != "fish":
        print(BASH.format(commands=" ".join(commands), cases="\n".join(cases)))
