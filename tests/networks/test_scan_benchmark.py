import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "selective_scan.py"


def test_the_chunked_scan_is_much_faster_than_the_loop():
    command = [sys.executable, str(SCRIPT), "--json", "--pairs", "3"]
    cases = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["cases"]
    assert cases["forward, batch 1"]["ratio"] >= 10
    assert cases["forward and backward, batch 8"]["ratio"] >= 5
