"""The dispatcher's OpenAPI: the page tells the same, and the service keeps to it whatever it is sent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from house import House
from serving import manifest, serving

from nightreel_dispatcher.app import create_app
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.settings import Settings

PAGE = (Path(__file__).parent.parent / "docs/reference/http.md").read_text(encoding="utf-8")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 5  # an operation


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(store=str(tmp_path_factory.mktemp("desk")))
    return create_app(Desk(settings, DispatcherSettings())).openapi()


def test_the_page_tells_every_entrance_with_its_answers(described: dict[str, Any]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(/.*?)` \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)

    assert rows == [
        (method.upper(), path, operation["summary"], ", ".join(sorted(operation["responses"])))
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]


def test_the_page_tells_what_each_refusal_means(described: dict[str, Any]) -> None:
    rows = dict(re.findall(r"^\| (4\d\d|503) \| (.*) \|$", PAGE, re.MULTILINE))

    assert rows == {
        code: answer["description"]
        for operations in described["paths"].values()
        for operation in operations.values()
        for code, answer in operation["responses"].items()
        if code in ("503", *map(str, range(400, 500)))
    }


def test_the_description_holds_the_schema_of_a_job_and_leads_nowhere_else(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    references = set(re.findall(r"'\$ref': '(.*?)'", str(described)))

    assert {"Job", "Manifest", "Receipt"} <= schemas.keys()
    assert "shots" in schemas["Job"]["properties"]
    assert {name.removeprefix("#/components/schemas/") for name in references} - schemas.keys() == set()


def test_whatever_is_sent_is_answered_as_described(house: House) -> None:
    """schemathesis makes requests of the description, right and wrong ones."""
    with serving(house, dispatcher_predict_wait_s="0", dispatcher_max_manifest_mb="0.05") as served:
        served.post(manifest("a", batch="b"))
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{served.client.base_url}/openapi.json"),
            *("--checks", CHECKS, "--max-examples", str(EXAMPLES), "--phases", "examples,fuzzing"),
            *("--mode", "all", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
            *("--request-timeout", "30", "--no-shrink", "--max-time", "12"),
        ]
        (house.folder / "schemathesis.toml").write_text("[parameters]\nwait_s = 0\n")
        run = subprocess.run(command, cwd=house.folder, capture_output=True, text=True, check=False, timeout=300)

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "Traceback" not in served.leave().err
