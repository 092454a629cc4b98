# A Debian 12 with systemd in a container, for the scripts beside this one; to be sourced.
#
# `machine_make` unpacks a base system that was made once (mmdebstrap, kept outside the tree), with
# a stand-in for k3s and an ssh server for Git; `machine_boot` boots it in systemd-nspawn without any
# network but loopback; `inside` runs a command in it. Everything ends with the script.

SUITE=bookworm
PACKAGES=systemd,systemd-sysv,dbus,ca-certificates,openssh-client,openssh-server,git,libfaketime,procps,man-db,e2fsprogs,sqlite3

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "FAILED: $*"
    exit 1
}

# base: the tar of the base system, made if it is not there (a minute).
base() {
    local key tar
    key=$(printf '%s %s %s' $SUITE $PACKAGES "$(uname -m)" | sha256sum | cut -c1-12)
    tar=$cache/debian-$SUITE-$key.tar
    if [ ! -e "$tar" ]; then
        say "making a Debian $SUITE to test in: a minute, once"
        mmdebstrap --quiet --format=tar --variant=minbase --include=$PACKAGES $SUITE "$tar.part" >&2 ||
            die "mmdebstrap could not make $tar"
        mv "$tar.part" "$tar"
        find "$cache" -maxdepth 1 -name 'debian-*.tar' -mtime +30 -delete
    fi
    printf '%s\n' "$tar"
}

# machine_make: a fresh system in $root.
machine_make() {
    root=$work/root
    rm -rf "$root"
    mkdir -p "$root/var"
    # A disk of its own, so that it can be full, or read-only.
    truncate -s 2G "$work/var.img"
    mkfs.ext4 -q "$work/var.img"
    mount -o loop "$work/var.img" "$root/var"
    tar -xf "$(base)" -C "$root" --exclude=./dev/* || die "the base system cannot be unpacked"
    install -m 0755 "$here/guest/k3s-standin" "$root/usr/local/sbin/k3s-standin"
    install -m 0644 "$here/guest/k3s.service" "$root/etc/systemd/system/k3s.service"
    mkdir -p "$root/opt/testbed" "$root/opt/deb" "$root/var/log/journal"
    ln -s /opt/testbed/kubectl "$root/usr/local/bin/kubectl"
    printf 'box\n' >"$root/etc/hostname"
    printf '127.0.0.1 localhost box\n' >"$root/etc/hosts"
    # Which machine it is, is settled at its first boot.
    : >"$root/etc/machine-id"
    # Nothing from outside can be had, and nothing should wait for it.
    rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
    ln -sf /dev/null "$root/etc/systemd/system/systemd-networkd-wait-online.service"
    for timer in apt-daily apt-daily-upgrade man-db; do
        ln -sf /dev/null "$root/etc/systemd/system/$timer.timer"
    done
}

# machine_boot: boots $root; its processes are found below $machine.
machine_boot() {
    systemd-nspawn -q -D "$root" --boot --register=no --keep-unit --private-network --console=pipe \
        --bind-ro="$GITOPSD_TEST_BIN:/opt/testbed" --bind-ro="$debs:/opt/deb" "$@" \
        --system-call-filter='landlock_create_ruleset landlock_add_rule landlock_restrict_self' \
        --kill-signal=SIGRTMIN+3 </dev/null >>"$work/console.log" 2>&1 &
    nspawn=$!
    local tries state=
    for tries in $(seq 300); do
        machine=$(pgrep -P $nspawn -f 'systemd' -o 2>/dev/null || true)
        if [ -n "$machine" ]; then
            state=$(inside systemctl is-system-running 2>/dev/null || true)
            case $state in running | degraded) return ;; esac
        fi
        kill -0 $nspawn 2>/dev/null || die "the container ended: $(tail -n 5 "$work/console.log")"
        sleep 0.2
    done
    die "the container is ${state:-not there} after a minute ($tries tries): $(tail -n 20 "$work/console.log")"
}

# inside COMMAND…: runs it as root in the machine.
inside() {
    nsenter -t "$machine" -a -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 KUBECONFIG=/etc/rancher/k3s/k3s.yaml "$@"
}

# not COMMAND…: fails if it succeeds; a bare `!` would not end a script.
not() {
    ! "$@"
}

# script: runs what stands on stdin with bash in the machine; the first failure ends it.
script() {
    { echo 'trap '\''echo "in the machine: $BASH_COMMAND" >&2'\'' ERR' && declare -f not holds && cat; } | inside bash -euo pipefail -s -- "$@"
}

# neighbour COMMAND…: a program of this host in the network of the machine, as what the box meets
# outside. It goes with the script, or when `neighbours_go`.
neighbours=()
neighbour() {
    setpriv --pdeathsig KILL nsenter -t "$machine" -n "$@" </dev/null >>"$work/neighbours.log" 2>&1 &
    neighbours+=($!)
}

neighbours_go() {
    kill "${neighbours[@]}"
    wait "${neighbours[@]}" 2>/dev/null || true
    neighbours=()
}

# machine_stop: powers off in good order.
machine_stop() {
    [ -n "${nspawn:-}" ] || return 0
    kill -RTMIN+4 "$machine" 2>/dev/null || true
    local tries
    for tries in $(seq 300); do
        kill -0 "$nspawn" 2>/dev/null || break
        sleep 0.2
    done
    kill -KILL "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
    nspawn=
    : "$tries"
}

# machine_cut: all of its processes at once, as a power cut would.
machine_cut() {
    kill -KILL "$machine" "$nspawn" 2>/dev/null || true
    wait "$nspawn" 2>/dev/null || true
    nspawn=
}

# eventually SECONDS WHAT COMMAND…: tries until it succeeds.
eventually() {
    local limit=$1 what=$2 begun=$SECONDS
    shift 2
    until "$@" >"$work/last" 2>&1; do
        if [ $((SECONDS - begun)) -ge "$limit" ]; then
            sed 's/^/    /' "$work/last" >&2
            die "$what: not within $limit s"
        fi
        sleep 0.3
    done
}

# holds TEXT COMMAND…: succeeds if what the command prints holds the text, however it ends. Not a
# pipe into `grep -q`, which would end a command that has more to say.
holds() {
    local text=$1 said
    shift
    said=$("$@" 2>&1) || true
    grep -qF -- "$text" <<<"$said" || {
        printf 'expected %s in:\n%s\n' "$text" "$(tail -n 20 <<<"$said")" >&2
        return 1
    }
}
