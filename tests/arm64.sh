#!/usr/bin/env bash
# arm64.sh: the package for the other architecture, cross-built, looked at, and its program executed
# under qemu's user mode emulation with Debian's arm64 libc. Part of `make test-full`: it compiles
# everything once. On an arm64 machine `make test` does all of this and more without it.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh

case $(dpkg --print-architecture) in
arm64) echo 'this machine is arm64: nothing to cross-build' && exit ;;
esac
tests/packages.sh readelf:binutils lintian:lintian >&2

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

work=$(mktemp -d /var/tmp/gitopsd-arm64.XXXXXX)
trap 'rm -rf "$work"' EXIT
export GITOPSD_DEB_DIR=$work
deb=$(debian/build.sh arm64 2>"$work/log") || { tail -n 40 "$work/log" >&2; exit 1; }
dpkg-deb -x "$deb" "$work/root"
program=$work/root/usr/bin/gitopsd

readelf -h "$program" | grep -q 'Machine: *AArch64' || fail "$program is of another architecture"
[ "$(dpkg-deb -f "$deb" Architecture)" = arm64 ]
needed=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort | tr '\n' ' ')
for library in $needed; do
    case $library in
    libc.so.6 | libm.so.6 | libgcc_s.so.1 | ld-linux-aarch64.so.1) ;;
    *) fail "it needs $library" ;;
    esac
done
depends=$(dpkg-deb -f "$deb" Depends)
case $depends in
*libc6*) ;;
*) fail "it depends on $depends" ;;
esac
lintian --fail-on error,warning --tag-display-limit 0 "$deb" || fail 'lintian'
echo "arm64: $(stat -c %s "$deb") bytes packed, $(stat -c %s "$program") the program, needs $needed"

# /out is $work there.
emulated() {
    debian/cross.sh arm64 qemu-aarch64-static /out/root/usr/bin/gitopsd "$@" 2>&1 | grep -v 'nspawn/propagate'
}
version=$(dpkg-parsechangelog -SVersion)
[ "$(emulated --version)" = "gitopsd $version" ] || fail "--version says $(emulated --version)"
