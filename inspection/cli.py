"""The commands `anomaly inspect ...`: recipe, line, review, assurance. Each lies in its own file and loads what it needs."""

import typer

app = typer.Typer(help="Inspect parts on a line: recipes, line runner, review.", no_args_is_help=True)
