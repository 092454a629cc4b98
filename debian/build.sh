#!/usr/bin/env bash
# build.sh [ARCH]: makes the Debian package and names it in the last line of stdout.
#
# It goes to dist/, or to GITOPSD_DEB_DIR; the tree is left as it was. The binary is the one that
# the tests use, from CARGO_TARGET_DIR. For another architecture than this machine's the same happens
# in a Debian of its own, see cross.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

here=$(dpkg --print-architecture)
arch=${1:-$here}
out=${GITOPSD_DEB_DIR:-$PWD/dist}
mkdir -p "$out"
GITOPSD_DEB_DIR=$(cd "$out" && pwd)
export GITOPSD_DEB_DIR

. tests/lib.sh
tests/packages.sh dpkg-buildpackage:dpkg-dev >&2
version=$(dpkg-parsechangelog -SVersion)
name=gitopsd_${version}_$arch
# debhelper gives the build a home of its own.
export CARGO_HOME=${CARGO_HOME:-$HOME/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}

if [ "$arch" != "$here" ] && [ -z "${GITOPSD_CROSS:-}" ]; then
    # There is no network in there.
    cargo fetch --locked >&2
    # Building writes into the tree, and this one is left alone.
    debian/cross.sh "$arch" sh -eu -c "
        mkdir /tmp/gitopsd
        tar -C /src -c --exclude=./.git --exclude=./target --exclude=./dist . | tar -C /tmp/gitopsd -x
        GITOPSD_CROSS=yes /tmp/gitopsd/debian/build.sh $arch" >&2
    echo "$GITOPSD_DEB_DIR/$name.deb"
    exit
fi

tests/packages.sh dh:debhelper dh_apparmor:dh-apparmor >&2
name=$GITOPSD_DEB_DIR/$name
# -d: Rust comes from rustup as a rule, and no package knows about it.
dpkg-buildpackage --build=binary -us -uc -d --host-arch "$arch" --post-clean \
    --buildinfo-option=-u"$GITOPSD_DEB_DIR" --buildinfo-file="$name.buildinfo" \
    --changes-option=-u"$GITOPSD_DEB_DIR" --changes-file="$name.changes" >&2
echo "$name.deb"
