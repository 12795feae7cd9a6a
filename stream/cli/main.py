"""`portcullis`: the group of all commands."""

from __future__ import annotations

import click

from stream.cli import asking, daily, ordering, ruling, running
from stream.cli.common import Command, quiet_libraries


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
@click.version_option(package_name="portcullis")
def main(verbose: bool) -> None:
    """Portcullis tails Okta's System Log and makes every target agree: at once when an account is in danger, steadily when somebody
    joins, moves or leaves.

    Begin with `portcullis demo`; then `portcullis simulate --write-config portcullis.toml` and `portcullis run`.
    """
    quiet_libraries(verbose)


for module in (running, daily, asking, ruling, ordering):
    for command in module.COMMANDS:
        main.add_command(command)
