#!/usr/bin/env bash
# The package in a real systemd: a Debian 12 in systemd-nspawn, with the control plane of the test
# bed standing in for k3s (guest/k3s-standin) and Git over ssh. Part of `make test`; each case is a
# sentence, in the order of a box's life. `tests/system/run.sh NAME…` runs those alone that match,
# after a fresh install; GITOPSD_DEB names a package that is built already, GITOPSD_TEST_KEEP=1 keeps
# the machine's directory.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
. tests/lib.sh
. "$here/bed.sh"

[ "$(id -u)" = 0 ] || {
    say 'tests/system: containers want root here: run it with sudo, or leave it to CI'
    exit 1
}
tests/packages.sh python3:python3 mmdebstrap:mmdebstrap systemd-nspawn:systemd-container lintian:lintian \
    apparmor_parser:apparmor nsenter:util-linux mkfs.ext4:e2fsprogs ssh-keygen:openssh-client git:git \
    setpriv:util-linux openssl:openssl >&2
[ -n "${GITOPSD_TEST_BIN:-}" ] || build_tools >&2

work=$(mktemp -d /var/tmp/gitopsd-system.XXXXXX)
nspawn='' machine=''
finish() {
    local rc=$?
    trap - EXIT ERR
    if [ $rc != 0 ] && [ -n "$machine" ]; then
        say 'the last lines of the journal:'
        inside journalctl -q -u gitopsd -n 8 -o short-precise --no-pager >&2 || true
    fi
    [ -z "$nspawn" ] || machine_cut
    awk -v at="$work/" 'index($2, at) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount -l || true
    if [ -n "${GITOPSD_TEST_KEEP:-}" ]; then say "kept: $work"; else rm -rf "$work"; fi
    exit $rc
}
trap finish EXIT
trap 'exit 130' INT TERM

debs=$work/debs
mkdir -p "$debs"
if [ -n "${GITOPSD_DEB:-}" ]; then
    cp "$GITOPSD_DEB" "$debs"
    deb=$debs/${GITOPSD_DEB##*/}
else
    say 'building the package'
    deb=$(GITOPSD_DEB_DIR=$debs debian/build.sh 2>"$work/deb.log") || {
        tail -n 40 "$work/deb.log" >&2
        die 'the package does not build'
    }
fi
for file in "$here"/cases/*.sh; do
    . "$file"
done

passed=0
# case NAME: runs a function of this name; its first failure ends everything.
run_case() {
    local begun=$SECONDS
    CASE=$1
    "$1"
    passed=$((passed + 1))
    printf 'ok %2d  %s  (%d s)\n' $passed "${1//_/ }" $((SECONDS - begun))
}
# The first command that fails ends everything, and is named.
trap 'say "in ${CASE:-the set-up}: line $LINENO of ${BASH_SOURCE[0]##*/}: $BASH_COMMAND"; exit 1' ERR
set -E

machine_make
machine_boot
for name in "${CASES[@]}"; do
    if [ $# -gt 0 ]; then
        case $name in
        a_bare_install* | init_brings*) ;;
        *) grep -qF -f <(printf '%s\n' "$@") <<<"$name" || continue ;;
        esac
    fi
    run_case "$name"
done
printf '%d passed, 0 failed\n' $passed
