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

# In the Debian that built it; /out is $work there.
cat >"$work/emulated" <<'I'
set -eu
gitopsd() { qemu-aarch64-static /out/root/usr/bin/gitopsd "$@"; }
gitopsd --version
gitopsd keygen 2>/dev/null | grep -c '^AGE-SECRET-KEY-1'
# The daemon itself: database, socket, fetch, an orderly end.
mkdir -p /tmp/g/bin
cd /tmp/g
PATH=/tmp/g/bin:$PATH
printf '#!/bin/sh\nexit 0\n' >bin/kubectl
chmod 755 bin/kubectl
printf 'root: {url: http://127.0.0.1:9/r.git, ref: {branch: main}, path: .}\nstateDirectory: /tmp/g/s\nruntimeDirectory: /tmp/g/r\n' >config.yaml
qemu-aarch64-static /out/root/usr/bin/gitopsd --config config.yaml run 2>log &
pid=$!
tries=0
until gitopsd --config config.yaml status 2>/dev/null | grep -q 'cannot reach http://127.0.0.1:9/r.git'; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat log; exit 1; }
    sleep 0.3
done
kill -TERM $pid
wait $pid
tail -n 1 log
stat -c '%n %a' s/history.db
# A repository, read and walked. The emulation has no seccomp, and the program runs no renderer
# without it: this far and no further.
gitopsd check /src/tests/examples/flux-config --engine /tmp/g/bin/kubectl 2>&1 || true
I
debian/cross.sh arm64 sh /out/emulated >"$work/said" 2>/dev/null || { cat "$work/said" >&2; fail 'under emulation'; }
version=$(dpkg-parsechangelog -SVersion)
for line in "gitopsd $version" 1 'gitopsd stopped' 's/history.db 600' 'ok    entry: clusters/my-cluster' \
    'cannot start /tmp/g/bin/kubectl: Invalid argument'; do
    grep -qF -- "$line" "$work/said" || { cat "$work/said" >&2; fail "under emulation it does not say: $line"; }
done
echo 'arm64: the program, its daemon and check of a repository ran under emulation; no render, for want of seccomp there'
