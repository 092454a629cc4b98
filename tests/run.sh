#!/usr/bin/env bash
# The whole suite, as `make test` and CI run it: from a clean clone, without questions.
#
# It installs what a bare Debian lacks, builds the control plane that the tests use (once, see
# tests/tools.sh) and builds gitopsd in CARGO_TARGET_DIR, by default outside the tree. Cold it
# takes under an hour on two cores, warm a few minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

started=$SECONDS

stage() {
    printf '\n== %s  (%d min %02d s)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
    shift
    "$@" </dev/null
}

for tool in cargo rustc; do
    command -v $tool >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v $tool >/dev/null || {
        echo "$tool is missing: install Rust 1.90 or newer, https://rustup.rs" >&2
        exit 1
    }
done

cache=${GITOPSD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gitopsd-test}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

build_tools() {
    GITOPSD_TEST_BIN=$(tests/tools.sh)
    export GITOPSD_TEST_BIN
    "$GITOPSD_TEST_BIN/testcluster" --version
}

stage 'format' cargo fmt --check
stage 'test bed' build_tools
stage 'lints' cargo clippy --release --all-targets --locked -- -D warnings
stage 'docs' env RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --document-private-items --locked
stage 'tests' cargo test --release --locked
printf '\n== all passed  (%d min %02d s)\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
