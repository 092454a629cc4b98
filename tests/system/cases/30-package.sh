# Upgrade, downgrade, removal.

CASES+=(
    an_upgrade_from_an_older_schema_in_the_middle_of_a_run_moves_no_object
    a_downgrade_does_not_open_a_newer_database
    a_configuration_that_was_edited_is_kept_over_upgrades
    removal_leaves_cluster_and_state_alone_and_a_new_installation_goes_on
    purge_takes_the_state_and_keeps_the_keys
)

# repack VERSION [COMMAND…]: the same package under another version, as a release that changes nothing
# else, or what the command does in its tree.
repack() {
    local tree=$work/repack
    rm -rf "$tree"
    dpkg-deb -R "$deb" "$tree"
    sed -i "s/^Version: .*/Version: $1/" "$tree/DEBIAN/control"
    (cd "$tree" && "${@:2}")
    dpkg-deb --root-owner-group -Zgzip -z1 -b "$tree" "$debs/gitopsd_$1.deb" >/dev/null
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

# uids: the objects of `under_way`, each as one of its own.
uids() {
    objects | awk '$3 ~ /^many-/ || $3 == "slow" { print $1, $2, $3, $4 }' | LC_ALL=C sort
}

# under_way: a run that takes until it is `mended`: sixty objects are there, and a Deployment is waited
# for that does not become ready. Their uids are kept for `none_was_made_anew`.
under_way() {
    local tree=$work/repos/flux-config
    mkdir -p "$tree/slow"
    maps 60 >"$tree/slow/many.yaml"
    deployment unready >"$tree/slow/deployment.yaml"
    kustomization slow | sed 's/^  timeout: .*/  timeout: 10m/; s/^  prune: true/&\n  wait: true/' \
        >"$tree/clusters/my-cluster/slow.yaml"
    push 'sixty objects and a slow one'
    inside gitopsd reconcile --with-source --no-wait >/dev/null
    eventually 60 'the run is under way' running
    uids >"$work/uids"
    [ "$(wc -l <"$work/uids")" -ge 60 ]
}

none_was_made_anew() {
    uids >"$work/uids.after"
    LC_ALL=C comm -23 "$work/uids" "$work/uids.after" >"$work/last"
    [ ! -s "$work/last" ] || die "gone, or made anew: $(cat "$work/last")"
}

# mended: the run comes to its end, and everything is there.
mended() {
    deployment 1 >"$work/repos/flux-config/slow/deployment.yaml"
    push 'the slow one is mended'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'all is ready again' ready
    many 60
    none_was_made_anew
}

# gone_again: what left Git is still known by its owner.
gone_again() {
    rm -r "$work/repos/flux-config/slow" "$work/repos/flux-config/clusters/my-cluster/slow.yaml"
    push 'and away with them'
    inside gitopsd reconcile --with-source >/dev/null 2>&1 || true
    confirmed
    eventually 60 'none is left behind' many 0
}

an_upgrade_from_an_older_schema_in_the_middle_of_a_run_moves_no_object() {
    local runs first
    repack 0.1.0+upgrade
    still >"$work/before"
    runs=$(inside gitopsd history --json -n 1000 | grep -c '"run":')
    first=$(inside gitopsd history --json -n 1000 | sed -n 's/.*"run": "\([^"]*\)".*/\1/p' | tail -n 1)
    # What the older version leaves behind when it stops: the database before its second migration.
    script <<'I'
mkdir -p /run/systemd/system/gitopsd.service.d
cat >/run/older-schema <<'S'
#!/bin/sh
cd /var/lib/gitopsd && runuser -u gitopsd -- sqlite3 history.db \
    'DROP TABLE brought; DROP TABLE deployed; DROP TABLE push_change; DROP TABLE push; DROP TABLE choice;
     DROP TABLE tags; DROP TABLE child; DROP TABLE released; PRAGMA user_version = 1;' && touch /run/older-schema.done
S
chmod 0755 /run/older-schema
printf '[Service]\nExecStopPost=+/run/older-schema\n' >/run/systemd/system/gitopsd.service.d/90-older.conf
systemctl daemon-reload
I
    under_way
    inside apt-get -q install -y /opt/deb/gitopsd_0.1.0+upgrade.deb >"$work/apt" 2>&1
    inside test -e /run/older-schema.done
    script <<'I'
rm /run/systemd/system/gitopsd.service.d/90-older.conf /run/older-schema.done
systemctl daemon-reload
I
    eventually 60 'it goes on' running
    mended
    still | grep -v -e ' many-' -e ' slow ' >"$work/after"
    diff "$work/before" "$work/after"
    [ "$(inside gitopsd history --json -n 1000 | grep -c '"run":')" -ge "$runs" ]
    inside gitopsd history show "$first" >/dev/null
    inside systemctl is-active -q gitopsd
    gone_again
}

# The sixty are there, and their run is not over.
running() {
    # What is not ready yet is no error here.
    many 60 && { inside gitopsd status --json || true; } |
        python3 -c 'import json, sys; sys.exit(not any(i["name"] == "slow" and i["running"] for i in json.load(sys.stdin)["summary"]["items"]))'
}

# deployment TAG: what becomes of its pods is said by the tag.
deployment() {
    cat <<Y
apiVersion: apps/v1
kind: Deployment
metadata:
  name: slow
  namespace: default
spec:
  selector:
    matchLabels:
      app: slow
  template:
    metadata:
      labels:
        app: slow
    spec:
      containers:
      - name: slow
        image: registry.test.invalid/slow:$1
Y
}

a_downgrade_does_not_open_a_newer_database() {
    local version file=/var/lib/gitopsd/history.db
    inside systemctl stop gitopsd
    version=$(inside runuser -u gitopsd -- sqlite3 $file 'PRAGMA user_version')
    [ "$version" -gt 1 ]
    # A version to come has written it.
    inside runuser -u gitopsd -- sqlite3 $file 'PRAGMA user_version = 999'
    inside sha256sum $file >"$work/database"
    inside apt-get -q install -y --allow-downgrades "/opt/deb/${deb##*/}" >"$work/apt" 2>&1
    eventually 20 'it says why' holds "schema 999, this gitopsd knows $version" inside journalctl -q -u gitopsd -n 20
    holds 'install the newer gitopsd again' inside journalctl -q -u gitopsd -n 20
    # Trying again would not help: it is not tried.
    [ "$(inside systemctl show -P ActiveState gitopsd)" = failed ]
    [ "$(inside systemctl show -P ExecMainStatus gitopsd)" = 78 ]
    [ "$(inside sha256sum $file)" = "$(cat "$work/database")" ]
    inside runuser -u gitopsd -- sqlite3 $file "PRAGMA user_version = $version"
    inside systemctl start gitopsd
    eventually 60 'all is ready again' ready
}

a_configuration_that_was_edited_is_kept_over_upgrades() {
    repack 0.1.0+kept.1
    # A release with other conffiles: the one that was edited, and one that was not.
    repack 0.1.0+kept.2 sed -i '1i # of a newer release' etc/gitopsd/config.yaml etc/apparmor.d/usr.bin.gitopsd
    script <<'I'
cp -p /etc/gitopsd/config.yaml /root/config.yaml.kept
sed -i '1i # mine' /etc/gitopsd/config.yaml
printf 'limits:\n  workers: 3\n' >>/etc/gitopsd/config.yaml
sha256sum /etc/gitopsd/config.yaml /etc/gitopsd/config.d/* >/root/edited
install() { DEBIAN_FRONTEND=noninteractive apt-get -q install -y "$@" </dev/null >/tmp/apt 2>&1 || { cat /tmp/apt >&2; return 1; }; }
# Where nothing has changed on the package's side, nobody is asked.
install /opt/deb/gitopsd_0.1.0+kept.1.deb
sha256sum -c --quiet /root/edited
[ "$(ls /etc/gitopsd/config.yaml*)" = /etc/gitopsd/config.yaml ]
systemctl is-active -q gitopsd
# Where it has, the answer that an unattended upgrade gives is as good as the edit.
install -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold /opt/deb/gitopsd_0.1.0+kept.2.deb
sha256sum -c --quiet /root/edited
[ "$(head -n 1 /etc/gitopsd/config.yaml.dpkg-dist)" = '# of a newer release' ]
[ "$(head -n 1 /etc/apparmor.d/usr.bin.gitopsd)" = '# of a newer release' ]
gitopsd check >/tmp/checked
I
    eventually 60 'all is ready by the edited one' ready
    script "${deb##*/}" <<'I'
rm /etc/gitopsd/config.yaml.dpkg-dist /root/edited
mv /root/config.yaml.kept /etc/gitopsd/config.yaml
apt-get -q install -y --allow-downgrades "/opt/deb/$1" </dev/null >/tmp/apt 2>&1
I
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
# Plain, or sealed by a case before.
[ -s "$(ls /etc/gitopsd/credentials/age-key*)" ]
[ -s /etc/gitopsd/config.d/50-init.yaml ]
I
    inside apt-get -q install -y "/opt/deb/${deb##*/}" >"$work/apt" 2>&1
    eventually 60 'all is ready again' ready
    still >"$work/after"
    diff "$work/before" "$work/after"
}

purge_takes_the_state_and_keeps_the_keys() {
    still >"$work/before"
    # The state on a disk of its own, and what an init that was cut short left behind.
    script <<'I'
systemctl stop gitopsd
mount --bind /var/lib/gitopsd /var/lib/gitopsd
systemctl start gitopsd
mkdir -m 0700 /etc/gitopsd/.init
echo key >/etc/gitopsd/.init/0
I
    inside apt-get -q purge -y gitopsd >"$work/apt" 2>&1
    grep -q 'keys are kept in /etc/gitopsd/credentials' "$work/apt"
    grep -q '/etc/gitopsd/.init is kept too' "$work/apt"
    still >"$work/after"
    diff "$work/before" "$work/after"
    script <<'I'
# Nothing is in it, and nothing of the package is left half done.
findmnt /var/lib/gitopsd >/dev/null
[ -z "$(ls -A /var/lib/gitopsd)" ]
not dpkg -s gitopsd >/dev/null 2>&1
[ -z "$(find /etc/systemd/system -name 'gitopsd*')" ]
umount /var/lib/gitopsd
[ -s /etc/gitopsd/.init/0 ]
rm -r /etc/gitopsd/.init
I
    # Once more, from a directory like any other.
    inside apt-get -q install -y "/opt/deb/${deb##*/}" >"$work/apt" 2>&1
    inside apt-get -q purge -y gitopsd >"$work/apt" 2>&1
    script <<'I'
[ ! -e /var/lib/gitopsd ]
[ ! -e /run/gitopsd ]
[ ! -e /etc/gitopsd/config.yaml ]
[ ! -e /etc/gitopsd/config.d/50-init.yaml ]
[ -s "$(ls /etc/gitopsd/credentials/age-key*)" ]
[ -s "$(ls /etc/gitopsd/credentials/git-identity*)" ]
I
}
