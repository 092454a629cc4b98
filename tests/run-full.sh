#!/usr/bin/env bash
# Everything that `make test` runs, with a cut at every effect of the daemon (two hours), and what
# takes longer: requests to Cloudflare judged by the types of its own client, the demo, checked claim
# by claim, and the figures. Arm64, rebuild comparison, soaks
# and fuzzing join it with the packaging.
set -euo pipefail
cd "$(dirname "$0")/.."
GITOPSD_TEST_CUTS=all tests/run.sh
tests/cloudflare/run.sh
tests/demo/run.sh
tests/system/run.sh
tests/bench/run.sh
