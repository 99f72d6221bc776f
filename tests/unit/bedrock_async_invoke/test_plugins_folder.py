from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PLUGINS = Path(__file__).parents[3] / "plugins"

PROBE = """
import json, sys
from airflow import plugins_manager, settings
plugins_manager.ensure_plugins_loaded()
scanned = [name for name in sys.modules if name in {modules}]
import bedrock_async_invoke.operators
print(json.dumps({{"scanned": scanned, "errors": plugins_manager.get_import_errors(), "folder": settings.PLUGINS_FOLDER,
                  "file": bedrock_async_invoke.operators.__file__}}))
"""


def test_airflow_does_not_scan_the_package_and_can_import_it(tmp_path):
    modules = {path.stem for path in (PLUGINS / "bedrock_async_invoke").glob("*.py")}
    assert "operators" in modules
    environment = {
        "PATH": os.environ["PATH"],
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(PLUGINS.parent / "include"),
    }
    command = [sys.executable, "-c", PROBE.format(modules=modules - {"__init__"})]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["folder"] == str(PLUGINS)
    assert found["file"] == str(PLUGINS / "bedrock_async_invoke" / "operators.py")
    assert found["scanned"] == []
    assert not [error for error in found["errors"] if "bedrock_async_invoke" in error]
