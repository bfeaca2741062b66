"""The commands `anomaly triage ...`. Each lies in its own file, which loads what it needs when it runs."""

import typer

from medical.commands.check import check_command
from medical.commands.pull import pull_command
from medical.commands.serve import queue_command, serve_command

app = typer.Typer(
    help="Radiology triage: DICOM in, worklist and DICOM results out. Research use, not a medical device.",
    no_args_is_help=True,
)
app.command("check")(check_command)
app.command("serve")(serve_command)
app.command("queue")(queue_command)
app.command("pull")(pull_command)
