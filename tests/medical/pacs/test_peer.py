"""The service with a real PACS: Debian's Orthanc and dcmtk, in a network namespace of their own.

Orthanc listens on all addresses of its machine whatever one sets; in the namespace that is a loopback of its own. The
checks themselves run there too, in one pytest: `namespace_checks.py`. Each of its tests is one here.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.medical.pacs.peers import PLUGINS

CHECKS = Path(__file__).with_name("namespace_checks.py")
PROGRAMS = ("Orthanc", "storescu", "findscu", "echoscu", "unshare", "ip", "openssl")
NAMES = [one.name for one in ast.parse(CHECKS.read_text()).body if getattr(one, "name", "").startswith("test_")]
pytestmark = [pytest.mark.peer, pytest.mark.slow]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not PLUGINS.is_dir():
        pytest.skip(
            f"not installed: {', '.join(missing) or 'orthanc-dicomweb'}; apt-get install orthanc "
            "orthanc-dicomweb dcmtk iproute2"
        )
    if subprocess.run(["unshare", "-rnpf", "true"], capture_output=True).returncode:
        pytest.skip("this kernel or container allows no namespaces (unshare -rnpf)")
    report = tmp_path_factory.mktemp("peer") / "report.xml"
    options = f"-q -p no:cacheprovider -o python_files={CHECKS.name} --junitxml={report}"
    inside = f'ip link set lo up && exec "{sys.executable}" -m pytest {options} "{CHECKS}"'
    ran = subprocess.run(
        ["unshare", "-rnpf", "--kill-child", "bash", "-c", inside],
        capture_output=True,
        text=True,
        cwd=CHECKS.parents[3],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        timeout=400,
    )
    assert report.exists(), ran.stdout[-3000:] + ran.stderr[-3000:]
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problems = [part.text or "" for part in case if part.tag in ("failure", "error", "skipped")]
        found.setdefault(re.sub(r"\[.*", "", case.get("name")), []).append("\n".join(problems))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_in_its_namespace(outcomes, name):
    assert name in outcomes
    assert not any(outcomes[name]), "\n".join(outcomes[name])
