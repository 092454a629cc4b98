#!/usr/bin/env bash
# Everything that `make test` runs, with a cut at every effect of the daemon (two hours), and what
# takes longer: requests to Cloudflare judged by the types of its own client, the demo, checked claim
# by claim, the figures, a second build that must give the same packages, and the package for arm64.
set -euo pipefail
cd "$(dirname "$0")/.."
GITOPSD_TEST_CUTS=all tests/run.sh
tests/cloudflare/run.sh
tests/demo/run.sh
tests/rebuild.sh
tests/arm64.sh
tests/bench/run.sh
