"""The commands `anomaly triage ...`. Each lies in its own file, which loads what it needs when it runs."""

import typer

from medical.commands.audit import audit_app
from medical.commands.check import check_command
from medical.commands.deidentify import deidentify_command
from medical.commands.evaluate import evaluate_command
from medical.commands.explain import explain_command
from medical.commands.fit import fit_command
from medical.commands.pull import pull_command
from medical.commands.run import run_command
from medical.commands.serve import queue_command, serve_command
from medical.commands.shared import discreet

app = typer.Typer(
    help="Radiology triage: DICOM in, worklist and DICOM results out. Research use, not a medical device.",
    no_args_is_help=True,
)
app.command("check")(discreet(check_command))
app.command("fit")(discreet(fit_command))
app.command("run")(discreet(run_command))
app.command("evaluate")(discreet(evaluate_command))
app.command("explain")(discreet(explain_command))
app.command("serve")(serve_command)
app.command("queue")(queue_command)
app.command("pull")(pull_command)
app.command("deidentify")(discreet(deidentify_command))
app.add_typer(audit_app, name="audit")
