#!/usr/bin/env bash
# Everything that `make test` runs, and what takes longer: the demo, checked claim by claim, and
# the figures. Arm64, rebuild comparison, soaks and fuzzing join it with the packaging.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/run.sh
tests/demo/run.sh
tests/bench/run.sh
