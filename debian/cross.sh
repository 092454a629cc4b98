#!/usr/bin/env bash
# cross.sh ARCH COMMAND…: runs a command in a Debian 12 that builds for another architecture and runs
# what it built. The tree is /src there, read only; the target directory /target; what Cargo has
# downloaded /cargo/registry; GITOPSD_DEB_DIR, if it is set, /out.
#
# That Debian is unpacked once, outside the tree (two minutes, 2 GB): Debian's own Rust, its C cross
# compiler, the libc of the other architecture, debhelper, and qemu's user mode emulation. This
# machine's Rust stays as it is. There is no network in it. systemd-nspawn wants root.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh

SUITE=bookworm
arch=$1
shift

[ "$(id -u)" = 0 ] || {
    echo 'cross.sh: building for another architecture happens in a container: run it as root' >&2
    exit 1
}
tests/packages.sh mmdebstrap:mmdebstrap systemd-nspawn:systemd-container flock:util-linux \
    dpkg-architecture:dpkg-dev >&2

gnu=$(dpkg-architecture -a "$arch" -q DEB_HOST_GNU_TYPE 2>/dev/null)
packages=cargo-web,rustc-web,libstd-rust-web-dev:$arch,gcc-${gnu//_/-},libc6-dev:$arch,qemu-user-static
packages+=,dpkg-dev,debhelper,dh-apparmor,ca-certificates
key=$(printf '%s %s %s' $SUITE "$packages" "$(uname -m)" | sha256sum | cut -c1-12)
root=$cache/debian-$arch-$key
mkdir -p "$cache"
exec {lock}>"$cache/lock-$arch"
flock "$lock"
if [ ! -e "$root" ]; then
    echo "making a Debian $SUITE that builds for $arch in $root: two minutes, once" >&2
    rm -rf "$root.part"
    mmdebstrap --quiet --variant=apt --architectures="$(dpkg --print-architecture),$arch" \
        --include="$packages" $SUITE "$root.part" >&2
    mkdir -p "$root.part"/{src,out,target,cargo/registry}
    mv "$root.part" "$root"
fi
exec {lock}>&-

out=()
[ -z "${GITOPSD_DEB_DIR:-}" ] || out=(--bind="$GITOPSD_DEB_DIR:/out" --setenv=GITOPSD_DEB_DIR=/out)
mkdir -p "$CARGO_TARGET_DIR" "${CARGO_HOME:-$HOME/.cargo}/registry"
triple=${gnu/-linux/-unknown-linux}
upper=$(tr a-z- A-Z_ <<<"$triple")
exec systemd-nspawn -q -D "$root" --register=no --keep-unit --as-pid2 --private-network --console=pipe \
    --bind-ro="$PWD:/src" --bind="$CARGO_TARGET_DIR:/target" "${out[@]}" \
    --bind="${CARGO_HOME:-$HOME/.cargo}/registry:/cargo/registry" --chdir=/src \
    --setenv=CARGO_HOME=/cargo --setenv=CARGO_TARGET_DIR=/target --setenv=CARGO_NET_OFFLINE=true \
    --setenv="CARGO_TARGET_${upper}_LINKER=$gnu-gcc" --setenv="CC_${triple//-/_}=$gnu-gcc" \
    --setenv="AR_${triple//-/_}=$gnu-ar" -- "$@" </dev/null
