"""The process that analyses: `python -m medical.pacs.analysis_process MODULE:FUNCTION ARGUMENTS`.

It reads one line of JSON per study from standard input, {"files": [...], "out": ...}, and answers with one line,
{"status", "files", "summary"} or {"error"}. It ends at once when its input ends, i.e. with the service, however that
ends.
"""

import importlib
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import IO

from anomaly.errors import AnomalyError
from medical.pacs.analysis import Analyser
from medical.privacy.logs import set_up_logging, words_of


def main() -> None:
    """Serves until the input ends."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    lines: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, lines), daemon=True).start()
    set_up_logging(None)  # what the analyser says is in its answers
    analyser: Analyser | None = None
    while True:
        request = json.loads(lines.get())
        try:
            if analyser is None:
                analyser = _made(sys.argv[1], json.loads(sys.argv[2]))
            result = analyser.analyse([Path(name) for name in request["files"]], Path(request["out"]))
            answer = {
                "status": result.outcome_status,
                "files": [str(path) for path in result.files_to_send],
                "summary": result.summary,
            }
        except Exception as error:  # the service decides what follows; the text may hold what a file holds
            of_settings = analyser is None and isinstance(error, AnomalyError)  # no object has been read yet
            answer = {"error": str(error) if of_settings else words_of(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _read(stream: IO[bytes], lines: "queue.Queue[bytes]") -> None:
    for line in stream:
        lines.put(line)
    os._exit(0)  # in the middle of an analysis, too: nobody waits for it


def _made(target: str, arguments: dict[str, object]) -> Analyser:
    module, _, name = target.partition(":")
    made = getattr(importlib.import_module(module), name)(**arguments)
    if not isinstance(made, Analyser):
        raise TypeError(f"{target} returned no Analyser")
    return made


if __name__ == "__main__":
    main()
