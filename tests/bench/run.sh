#!/usr/bin/env bash
# `make bench`: builds what is missing, then measures (tests/bench/main.rs). No figure fails it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/lib.sh
run_example bench
