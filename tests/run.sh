#!/usr/bin/env bash
# The whole suite, as `make test` and CI run it: from a clean clone, without questions.
#
# It installs what a bare Debian lacks, builds the control plane that the tests use (once, see
# tests/tools.sh) and builds gitopsd in CARGO_TARGET_DIR, by default outside the tree: one release
# build for the tests and the package. Cold it takes about an hour on two cores, warm a quarter of it.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/lib.sh

stage 'format' cargo fmt --check
stage 'test bed' build_tools
stage 'pipeline of the example' tests/ci.sh
stage 'lints' cargo clippy --release --all-targets --locked -- -D warnings
stage 'docs' env RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --document-private-items --locked
stage 'tests (gitopsd is built first: about 20 minutes without a word when all is new)' cargo test --release --locked
printf '\n== all passed  (%d min %02d s)\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
