#!/usr/bin/env bash
# packages.sh PROOF:PACKAGE…: installs the Debian packages whose proof, a command or an absolute
# path, is missing; as root or through sudo, and says what. Services of theirs are not started.
set -euo pipefail

die() {
    printf 'packages: %s\n' "$*" >&2
    exit 1
}

missing=()
for pair; do
    proof=${pair%%:*} package=${pair#*:}
    case $proof in
    /*) [ -e "$proof" ] || missing+=("$package") ;;
    *) command -v "$proof" >/dev/null || missing+=("$package") ;;
    esac
done
[ ${#missing[@]} -gt 0 ] || exit 0

become=()
if [ "$(id -u)" != 0 ]; then
    become=(sudo -n)
    sudo -n true 2>/dev/null || die "these are missing: apt-get install ${missing[*]}"
fi
command -v apt-get >/dev/null || die "these are missing, and this is no Debian: ${missing[*]}"
printf 'packages: installing %s: the build or the tests need them and this machine lacks them\n' "${missing[*]}" >&2
# Servers among them must not open a port on this machine: only their programs are wanted.
policy=/usr/sbin/policy-rc.d made=
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | "${become[@]}" tee $policy >/dev/null
    "${become[@]}" chmod 755 $policy
    made=yes
fi
ok=0
{
    "${become[@]}" apt-get -qq update &&
        "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -qq install -y --no-install-recommends "${missing[@]}"
} >&2 </dev/null || ok=$?
[ -z "$made" ] || "${become[@]}" rm -f $policy
[ $ok = 0 ] || die "apt-get could not install ${missing[*]}"
