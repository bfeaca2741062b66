"""The commands `anomaly inspect ...`. Each lies in its own file, which loads what it needs when it runs."""

import typer

from inspection.commands.assure import assure_app
from inspection.commands.defects import defects_command
from inspection.commands.init import calibrate_command, init_command
from inspection.commands.line import run_command
from inspection.commands.report import report_command
from inspection.commands.review import review_app

app = typer.Typer(help="Inspect parts on a line: recipes, line runner, review.", no_args_is_help=True)
app.command("init")(init_command)
app.command("calibrate")(calibrate_command)
app.command("run")(run_command)
app.command("report")(report_command)
app.command("defects")(defects_command)
app.add_typer(review_app, name="review")
app.add_typer(assure_app, name="assure")
