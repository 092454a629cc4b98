#!/usr/bin/env bash
# `make demo`: builds what is missing, then shows the loop (tests/demo/main.rs).
#
# The first time it builds the control plane (10 to 20 minutes on two cores, see tests/tools.sh)
# and gitopsd (about 20). After that the demo itself takes about a minute. It exits 1 if a claim fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/lib.sh
run_example demo
