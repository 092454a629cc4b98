#!/usr/bin/env bash
# The whole suite, as `make test` and CI run it: from a clean clone, without questions.
#
# It installs what a bare Debian lacks, builds the control plane that the tests use (once, see
# tests/tools.sh) and builds gitopsd in CARGO_TARGET_DIR, by default outside the tree: one release
# build for the tests and the package. Cold it takes about an hour on two cores, warm a quarter of it.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/lib.sh

# The package of this build, in a Debian with systemd. Containers want root.
package() {
    local deb become=()
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || {
            echo 'LEFT OUT: the package in a container wants root: sudo tests/system/run.sh'
            return
        }
        become=(sudo -n env "PATH=$PATH" "HOME=$HOME" "GITOPSD_TEST_BIN=$GITOPSD_TEST_BIN")
    fi
    packed=$(mktemp -d)
    trap 'rm -rf "$packed"' EXIT
    deb=$(GITOPSD_DEB_DIR=$packed debian/build.sh 2>"$packed/log") || {
        tail -n 40 "$packed/log" >&2
        exit 1
    }
    "${become[@]}" env "GITOPSD_DEB=$deb" tests/system/run.sh
}

stage 'format' cargo fmt --check
stage 'test bed' build_tools
stage 'pipeline of the example' tests/ci.sh
stage 'lints' cargo clippy --release --all-targets --locked -- -D warnings
stage 'docs' env RUSTDOCFLAGS=-Dwarnings cargo doc --release --no-deps --document-private-items --locked
stage 'tests (gitopsd is built first: about 20 minutes without a word when all is new)' cargo test --release --locked
stage 'the package in a Debian with systemd' package
printf '\n== all passed  (%d min %02d s)\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
