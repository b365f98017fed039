"""What only a fresh process shows: what an import brings in, and counters that outlive the process."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_IMPORTS = """
import sys
import app, celery_app
from dispatch.config.settings import load
from dispatch.telemetry import tracing
celery_app.create_celery(load())
assert not tracing.start("gateway")
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.instr", "dispatch.telemetry.otel"))])
"""


def test_off_no_instrumentation_and_no_recorder_is_imported():
    done = subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_importing_the_task_types_brings_in_no_framework_and_opens_no_client():
    code = (
        "import sys, gc, tasks; from dispatch import tasktypes; tasktypes.load(tasks); import httpx\n"
        "print([m for m in ('flask', 'redis', 'kombu', 'celery', 'amqp') if m in sys.modules],"
        " [o for o in gc.get_objects() if isinstance(o, httpx.Client)])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.strip() == "[] []"


def test_the_how_to_shows_code_that_registers_and_tests_that_pass():
    handler, test = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/add-a-task-type.md").read_text(), re.DOTALL)
    program = "\n".join(
        [
            f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})",
            handler,
            test.replace("from tasks.doors import MoveDoor\n", ""),
            "test_a_door_is_open_or_closed()",
            "from dispatch.tasktypes.registry import registry; print(registry['door.move'])",
        ]
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)

    assert done.stderr == ""
    assert "ladder=('1m', '5m'), time_limit=60, summary='Move a door" in done.stdout


_PROCESS = """
import json, sys
from dispatch.telemetry import metrics
metrics.share(sys.argv[1], sys.argv[2])
for _ in range(int(sys.argv[3])):
    metrics.REFUSED.inc("quota-exceeded")
    metrics.CONFIRM.observe(0.1)
metrics.DEPTH.set(int(sys.argv[3]))
print(json.dumps({sample.name: sample.value for family in metrics.registry().collect() for sample in family.samples}))
"""


def test_processes_that_share_export_all_of_them_and_a_successor_goes_on(tmp_path):
    for slot, count in (("slot0", 3), ("slot1", 4), ("slot0", 5)):
        command = [sys.executable, "-c", _PROCESS, str(tmp_path), slot, str(count)]
        output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    samples = json.loads(output)
    assert samples["robot_tasks_refused_total"] == 12
    assert samples["robot_publish_confirm_seconds_count"] == 12
    assert samples["robot_queue_depth"] == 5
    assert {path.name.rpartition("_")[2] for path in tmp_path.iterdir()} == {"slot0.db", "slot1.db"}
