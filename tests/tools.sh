#!/usr/bin/env bash
# Makes the programs that the tests and the demo run against, and prints the directory they are in
# as the last (and only) line of stdout. Everything else goes to stderr.
#
#   testcluster   kube-apiserver, controller-manager, scheduler and kubectl 1.37.2 in one binary,
#                 with links kubectl, k3s (a stand-in) and so on; source in tests/cluster/
#   kine, kwok    the datastore that k3s uses; a fake kubelet
#   sops          the reference for sealed files
#
# They are kept outside the tree, in ${GITOPSD_TEST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/gitopsd-test},
# below a key made of the contents of tests/cluster/ and the versions. Only the first run pays:
# 10 to 20 minutes on two cores. Two calls at once are safe, an interrupted call goes on where it
# stopped, and when all is there it returns at once.
#
# Missing Debian packages are installed (as root or through sudo).
set -euo pipefail

KINE=v0.17.5
KWOK=v0.8.0
SOPS=v3.13.3
KUBE=v1.37.2+gitopsd-testbed

here=$(cd "$(dirname "$0")" && pwd)
started=$SECONDS

say() {
    printf 'tools: %02d:%02d %s\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) "$*" >&2
}

die() {
    printf 'tools: %s\n' "$*" >&2
    exit 1
}

# build NAME COMMAND…: runs a build with a sign of life every 30 s; its output is shown if it fails.
build() {
    local name=$1 begun=$SECONDS rc=0
    shift
    say "building $name"
    "$@" >"$work/$name.log" 2>&1 &
    local pid=$! ticks=0
    while kill -0 $pid 2>/dev/null; do
        sleep 0.5
        ticks=$((ticks + 1))
        [ $((ticks % 60)) -ne 0 ] || say "building $name: still at it after $((SECONDS - begun)) s ($(tail -n 1 "$work/$name.log" | cut -c1-80))"
    done
    wait $pid || rc=$?
    if [ $rc -ne 0 ]; then
        tail -n 40 "$work/$name.log" >&2
        die "$name does not build; the lines above say why"
    fi
    say "built $name in $((SECONDS - begun)) s"
}

# install_tool NAME CGO MODULE@VERSION
install_tool() {
    local name=$1 cgo=$2 module=$3
    [ ! -x "$dir/$name" ] || return 0
    build "$name" env CGO_ENABLED="$cgo" GOBIN="$work" go install -ldflags '-s -w' "$module"
    mv "$work/$name" "$dir/$name"
}

# Compiles tests/cluster/. The version says what it is wherever Kubernetes prints one.
build_cluster() {
    [ ! -x "$dir/testcluster" ] || return 0
    local at=k8s.io/component-base/version
    build testcluster env CGO_ENABLED=0 go build -C "$here/cluster" \
        -ldflags "-s -w -X $at.gitVersion=$KUBE -X $at.gitMajor=1 -X $at.gitMinor=37" \
        -o "$work/testcluster" .
    mv "$work/testcluster" "$dir/testcluster"
}

links() {
    local name
    for name in kubectl k3s kube-apiserver kube-controller-manager kube-scheduler; do
        # Hard links: a sandbox that may see only this directory still reaches the program.
        ln -f "$dir/testcluster" "$dir/$name"
    done
}

"$here/packages.sh" git:git age:age ssh:openssh-client /usr/sbin/sshd:openssh-server \
    setpriv:util-linux flock:util-linux gcc:gcc sha256sum:coreutils docker-registry:docker-registry \
    /etc/ssl/certs/ca-certificates.crt:ca-certificates /usr/include/stdlib.h:libc6-dev

cache=${GITOPSD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gitopsd-test}
key=$({
    cd "$here/cluster"
    find . -type f | LC_ALL=C sort | xargs sha256sum
    echo "$KINE $KWOK $SOPS $KUBE $(uname -m)"
} | sha256sum | cut -c1-16)
dir=$cache/$key

if [ -e "$dir/complete" ]; then
    touch "$dir/complete"
    echo "$dir"
    exit 0
fi

command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || die "go is missing. The control plane is built from source: install Go 1.24 or newer (https://go.dev/dl), it fetches 1.26 by itself"

mkdir -p "$dir"
exec 9>"$cache/lock"
if ! flock -n 9; then
    say "another run builds already; waiting for it"
    flock 9
fi
if [ ! -e "$dir/complete" ]; then
    work=$(mktemp -d "$cache/work.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    export GOFLAGS=-buildvcs=false GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
    say "building the test bed into $dir: 10 to 20 minutes on two cores the first time, then never again"
    install_tool kine 1 github.com/k3s-io/kine@$KINE
    install_tool kwok 0 sigs.k8s.io/kwok/cmd/kwok@$KWOK
    install_tool sops 0 github.com/getsops/sops/v3/cmd/sops@$SOPS
    build_cluster
    links
    touch "$dir/complete"
    # 280 MB each: those of older revisions go when nobody has asked for them for a month.
    find "$cache" -mindepth 2 -maxdepth 2 -name complete -mtime +30 -printf '%h\n' | xargs -r rm -rf
    say "done"
fi
echo "$dir"
