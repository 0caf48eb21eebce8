"""Print parts of params.yaml."""

from __future__ import annotations

from functools import partial

import yaml

from heartseg.cli import RecipeName, make_app, run_app, run_command
from heartseg.config.params import load_params
from heartseg.config.recipe import Recipe

app = make_app(help=__doc__)


@app.callback()
def config() -> None:
    """Make `show` a subcommand; typer would otherwise leave out the name of an only command."""


@app.command()
def show(recipe: RecipeName) -> None:
    """Print a recipe with all its defaults."""
    content = load_params().recipe(recipe).model_dump(mode="json")
    own = {key: content.pop(key) for key in Recipe.__annotations__}
    print(yaml.safe_dump(own | content, sort_keys=False), end="")


main = partial(run_app, app, "heartseg config")

if __name__ == "__main__":
    run_command(main)
