"""`kickwatch completion SHELL`: the script that makes a shell complete kickwatch's commands and options."""

import click
from click.shell_completion import get_completion_class

from kickwatch.commands.common import examples

PROGRAM, VARIABLE = "kickwatch", "_KICKWATCH_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        "kickwatch completion bash >/etc/bash_completion.d/kickwatch",
        "kickwatch completion fish >~/.config/fish/completions/kickwatch.fish",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete the commands and options of kickwatch.

    `deploy/install` puts it where bash, zsh and fish look for it, if these directories exist.

    Exit status: 0.
    """
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, PROGRAM, VARIABLE).source())
