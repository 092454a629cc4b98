# Upgrade, downgrade, removal.

CASES+=(
    an_upgrade_in_the_middle_of_a_run_moves_no_object
    a_downgrade_does_not_open_a_newer_database
    removal_leaves_cluster_and_state_alone_and_a_new_installation_goes_on
    purge_takes_the_state_and_keeps_the_keys
)

# repack VERSION: the same package under another version, as a release that changes nothing else.
repack() {
    local tree=$work/repack
    rm -rf "$tree"
    dpkg-deb -R "$deb" "$tree"
    sed -i "s/^Version: .*/Version: $1/" "$tree/DEBIAN/control"
    dpkg-deb --root-owner-group -b "$tree" "$debs/gitopsd_$1.deb" >/dev/null
}

# Uid and generation of everything that runs: an object that was made anew or written shows here.
objects() {
    inside kubectl get deployments,services,configmaps,secrets,ingresses,networkpolicies -A \
        -l kustomize.toolkit.fluxcd.io/name \
        -o 'custom-columns=:.kind,:.metadata.namespace,:.metadata.name,:.metadata.uid,:.metadata.generation,:.metadata.resourceVersion' |
        sort
}

# As `objects`, without what a status write moves.
still() {
    objects | sed 's/ *[^ ]*$//'
}

an_upgrade_in_the_middle_of_a_run_moves_no_object() {
    repack 0.1.0+upgrade
    still >"$work/before"
    local runs
    runs=$(inside gitopsd history --json -n 1000 | grep -c '"run":')
    # A run is under way when the package comes: every Kustomization is asked for.
    inside gitopsd reconcile >/dev/null 2>&1 &
    inside apt-get -q install -y /opt/deb/gitopsd_0.1.0+upgrade.deb >"$work/apt" 2>&1
    wait $! || true
    eventually 60 'all is ready again' ready
    still >"$work/after"
    diff "$work/before" "$work/after"
    [ "$(inside gitopsd history --json -n 1000 | grep -c '"run":')" -ge "$runs" ]
    holds 'active' inside systemctl is-active gitopsd
}

a_downgrade_does_not_open_a_newer_database() {
    local version
    inside systemctl stop gitopsd
    version=$(python3 - "$root/var/lib/gitopsd/history.db" <<'P'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
version = db.execute("pragma user_version").fetchone()[0]
db.execute("pragma user_version = 999")
db.commit()
db.close()
print(version)
P
    )
    sha256sum "$root/var/lib/gitopsd/history.db" >"$work/database"
    inside systemctl start --no-block gitopsd
    eventually 20 'it says why' holds 'newer' inside journalctl -q -u gitopsd -n 20
    inside systemctl stop gitopsd
    sha256sum --quiet -c "$work/database"
    python3 -c 'import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(f"pragma user_version = {int(sys.argv[2])}"); db.commit()' \
        "$root/var/lib/gitopsd/history.db" "$version"
    inside chown -R gitopsd:gitopsd /var/lib/gitopsd
    inside systemctl reset-failed gitopsd
    inside systemctl start gitopsd
    eventually 60 'all is ready again' ready
}

removal_leaves_cluster_and_state_alone_and_a_new_installation_goes_on() {
    still >"$work/before"
    inside apt-get -q remove -y gitopsd >"$work/apt" 2>&1
    not inside systemctl is-active -q gitopsd 2>/dev/null
    still >"$work/after"
    diff "$work/before" "$work/after"
    script <<'I'
[ -s /var/lib/gitopsd/history.db ]
[ -s /etc/gitopsd/credentials/age-key ]
[ -s /etc/gitopsd/config.d/50-init.yaml ]
I
    inside apt-get -q install -y "/opt/deb/${deb##*/}" >"$work/apt" 2>&1
    eventually 60 'all is ready again' ready
    still >"$work/after"
    diff "$work/before" "$work/after"
}

purge_takes_the_state_and_keeps_the_keys() {
    still >"$work/before"
    inside apt-get -q purge -y gitopsd >"$work/apt" 2>&1
    grep -q 'keys are kept in /etc/gitopsd/credentials' "$work/apt"
    still >"$work/after"
    diff "$work/before" "$work/after"
    script <<'I'
[ ! -e /var/lib/gitopsd ]
[ ! -e /etc/gitopsd/config.yaml ]
[ ! -e /etc/gitopsd/config.d/50-init.yaml ]
[ -s /etc/gitopsd/credentials/age-key ]
[ -s /etc/gitopsd/credentials/git-identity ]
I
}
