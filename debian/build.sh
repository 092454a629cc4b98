#!/usr/bin/env bash
# build.sh [ARCH]: makes the Debian package and names it in the last line of stdout.
#
# It goes to dist/, or to GITOPSD_DEB_DIR; the tree is left as it was. The binary is the one that
# the tests use, from CARGO_TARGET_DIR.
set -euo pipefail
cd "$(dirname "$0")/.."

arch=${1:-$(dpkg --print-architecture)}
out=${GITOPSD_DEB_DIR:-$PWD/dist}
mkdir -p "$out"
GITOPSD_DEB_DIR=$(cd "$out" && pwd)
export GITOPSD_DEB_DIR

tests/packages.sh dh:debhelper dh_apparmor:dh-apparmor dpkg-buildpackage:dpkg-dev
. tests/lib.sh
# debhelper gives the build a home of its own.
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}

version=$(dpkg-parsechangelog -SVersion)
name=$GITOPSD_DEB_DIR/gitopsd_${version}_$arch
# -d: Rust comes from rustup as a rule, and no package knows about it.
dpkg-buildpackage --build=binary -us -uc -d --host-arch "$arch" --post-clean \
    --buildinfo-option=-u"$GITOPSD_DEB_DIR" --buildinfo-file="$name.buildinfo" \
    --changes-option=-u"$GITOPSD_DEB_DIR" --changes-file="$name.changes" >&2
echo "$name.deb"
