"""How long `vigie demo` takes to its first scored window on a warm start, and how much memory it needs.

python benchmarks/demo.py --duration 60 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


def run(duration_s: float) -> float:
    """Run the demo to its end; return the seconds to its first scored window."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "vigie", "demo", "--duration", str(duration_s), "--address", "127.0.0.1:0"]
    first_s = float("nan")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = ""
        while not url:
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the demo ended before it listened")
            url = line.split()[2] if line.startswith("listening on ") else ""
        while process.poll() is None:
            try:
                with urllib.request.urlopen(url + "metrics", timeout=30) as answer:
                    text = answer.read()
            except OSError:
                break  # it has ended
            if b"\nvigie_anomaly_score{" in text:
                first_s = time.perf_counter() - begun
                break
            time.sleep(0.1)
        process.communicate()
        if process.returncode != 0:
            raise SystemExit(f"the demo ended with {process.returncode}")
    return first_s


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of the measured run (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one flat object of figures")
    given = parser.parse_args()
    run(1.0)  # compiles, where nothing has been compiled yet
    first_s = run(given.duration)
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"demo: first scored window after {first_s:.1f} s on a warm start, peak memory {peak_mb:,.0f} MB")
    if given.json is not None:
        figures = {"demo_first_window_s": first_s, "demo_peak_mb": peak_mb}
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
