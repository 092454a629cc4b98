# What breaks on real boxes: disks, clocks, power.

CASES+=(
    a_full_disk_stops_no_healing_of_what_is_recorded_and_is_told
    a_machine_whose_var_is_full_crashes_nothing_and_goes_on_with_room
    a_read_only_var_is_named_and_mended_by_a_restart
    a_full_run_directory_is_told_and_drift_is_healed_after_it
    a_machine_whose_run_is_full_starts_the_unit_and_says_what_is_wrong
    a_journal_that_is_gone_stops_nothing
    a_damaged_database_is_put_aside_and_the_inventory_rebuilt
    a_clock_that_jumps_moves_no_object
    a_power_cut_in_the_middle_of_an_apply_converges_after_the_boot
)

# restart: the unit starts again whatever it was, and everything becomes ready.
restart() {
    inside systemctl reset-failed gitopsd 2>/dev/null || true
    inside systemctl restart gitopsd
    eventually 90 'all is ready again' ready
}

a_full_disk_stops_no_healing_of_what_is_recorded_and_is_told() {
    script <<'I'
systemctl stop gitopsd
mount -t tmpfs -o size=40m,mode=0700,uid=gitopsd,gid=gitopsd tmpfs /mnt
cp -a /var/lib/gitopsd/. /mnt/
umount -l /mnt 2>/dev/null || true
mount -t tmpfs -o size=24m,mode=0700,uid="$(id -u gitopsd)",gid="$(id -g gitopsd)" tmpfs /var/lib/gitopsd
I
    inside systemctl start gitopsd
    eventually 90 'all is ready on the small disk' ready
    inside bash -c 'head -c 100M /dev/zero >/var/lib/gitopsd/filler || true' 2>/dev/null
    # Drift is healed until the record of it finds no room; nothing crashes, and the cause is told.
    inside kubectl -n blaster scale deployment blaster-dev --replicas=7 >/dev/null
    sleep 3
    printf '# %s\n' "$(date)" >>"$work/repos/flux-config/clusters/my-cluster/infrastructure.yaml"
    push 'while the disk is full'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'the full disk is told' holds 'disk' inside gitopsd status
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    inside rm /var/lib/gitopsd/filler
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 90 'all is ready again' ready
    eventually 30 'drift is healed' unscaled
    script <<'I'
systemctl stop gitopsd
umount /var/lib/gitopsd
I
    # The record that is found again is older than the cluster.
    restart
}

# keep_the_journal: what it has so far, for a case that takes its disk away.
keep_the_journal() {
    inside journalctl --sync
    inside journalctl -q -u gitopsd -o json >"$work/journal.kept"
}

a_machine_whose_var_is_full_crashes_nothing_and_goes_on_with_room() {
    local main
    main=$(inside systemctl show -P MainPID gitopsd)
    keep_the_journal
    # Not the state directory alone: k3s and the journal have no room either, not even root's reserve.
    script <<'I'
fallocate -l "$(df --output=avail -B1 /var | tail -n 1)" /var/filler
dd if=/dev/zero of=/var/more bs=4k status=none 2>/dev/null || true
not dd if=/dev/zero of=/var/more.still bs=64k count=1 status=none 2>/dev/null
I
    printf '# %s\n' "$(date +%N)" >>"$work/repos/flux-config/clusters/my-cluster/infrastructure.yaml"
    push 'while all of /var is full'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'the cause is told' holds 'no space left' inside gitopsd status
    [ "$(inside systemctl show -P MainPID gitopsd)" = "$main" ]
    inside rm /var/filler /var/more /var/more.still
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 90 'all is ready with room again' ready
    healed 'with room in /var again'
    [ "$(inside systemctl show -P MainPID gitopsd)" = "$main" ]
}

a_read_only_var_is_named_and_mended_by_a_restart() {
    # All of it, as a card that has had enough: whoever writes there is stopped before.
    script <<'I'
systemctl stop gitopsd k3s
journalctl --relinquish-var
mount -o remount,ro /var
not touch /var/here 2>/dev/null
systemctl start --no-block gitopsd
I
    eventually 30 'the cause is told' holds '/var/lib/gitopsd' inside journalctl -q -u gitopsd -n 15 -p warning
    # It is tried again, more slowly each time, and not given up.
    eventually 30 'it waits' holds 'ended badly 3 times in a row: waiting 4 s' inside journalctl -q -u gitopsd -n 30
    [ "$(inside systemctl show -P NRestarts gitopsd)" -le 4 ]
    not holds 'start-limit' inside systemctl status gitopsd
    script <<'I'
systemctl stop gitopsd
mount -o remount,rw /var
journalctl --flush
systemctl start k3s
I
    restart
}

a_full_run_directory_is_told_and_drift_is_healed_after_it() {
    script <<'I'
systemctl stop gitopsd
mkdir -p /run/gitopsd
mount -t tmpfs -o size=2m,mode=0755,uid="$(id -u gitopsd)",gid="$(id -g gitopsd)" tmpfs /run/gitopsd
systemctl start gitopsd
I
    eventually 60 'all is ready on the small /run' ready
    inside bash -c 'head -c 4M /dev/zero >/run/gitopsd/filler || true' 2>/dev/null
    # Whatever finds no room for its files, the fetch first of all, fails by name; the rest goes on.
    printf '# %s\n' "$(date +%N)" >>"$work/repos/flux-config/clusters/my-cluster/infrastructure.yaml"
    push 'while /run is full'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'the cause is told' holds 'make room in the runtime directory' inside gitopsd status
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    # A reload that finds no room keeps to what was in force, and leaves no half of a key behind.
    script <<'I'
printf 'limits:\n  workers: 3\n' >/etc/gitopsd/config.d/90-test.yaml
not systemctl reload gitopsd 2>/dev/null
[ "$(ls -d /run/gitopsd/credentials-* 2>/dev/null | wc -l)" = 0 ]
systemctl is-active -q gitopsd
rm /etc/gitopsd/config.d/90-test.yaml
rm /run/gitopsd/filler
I
    inside gitopsd reconcile >"$work/last" 2>&1 || true
    eventually 60 'all is ready with room again' ready
    healed 'with room again'
    script <<'I'
systemctl stop gitopsd
umount /run/gitopsd
I
    restart
}

a_machine_whose_run_is_full_starts_the_unit_and_says_what_is_wrong() {
    local size
    size=$(inside df --output=size -k /run | tail -n 1 | tr -d ' ')
    # Not the unit's own directory alone: there is no room before the program runs.
    script <<'I'
systemctl stop gitopsd
mount -o remount,size=$(($(df --output=used -k /run | tail -n 1) + 64))k /run
head -c 4M /dev/zero >/run/filler 2>/dev/null || true
not dd if=/dev/zero of=/run/more bs=64k count=1 status=none 2>/dev/null
systemctl start gitopsd
I
    printf '# %s\n' "$(date +%N)" >>"$work/repos/flux-config/clusters/my-cluster/infrastructure.yaml"
    push 'while all of /run is full'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'the cause is told' holds 'make room in the runtime directory' inside gitopsd status
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    script "$size" <<'I'
rm -f /run/filler /run/more
mount -o remount,size="$1"k /run
I
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'all is ready with room again' ready
    healed 'with room in /run again'
}

a_clock_that_jumps_moves_no_object() {
    still >"$work/before"
    # libfaketime stands in for a clock that is set while the daemon runs: two hours back, then a day
    # ahead, as a box without a battery sees them. Monotonic clocks go on as they do then.
    script <<'I'
mkdir -p /run/systemd/system/gitopsd.service.d
lib=$(dpkg -L libfaketime | grep 'libfaketimeMT.so.1$')
cat >/run/systemd/system/gitopsd.service.d/90-clock.conf <<U
[Service]
Environment=LD_PRELOAD=$lib FAKETIME_TIMESTAMP_FILE=/run/gitopsd-clock FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
U
echo +0 >/run/gitopsd-clock
chmod 0644 /run/gitopsd-clock
systemctl daemon-reload
I
    restart
    echo -7200 | inside tee /run/gitopsd-clock >/dev/null
    healed 'with the clock two hours back'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || die "two hours back: $(cat "$work/last")"
    # It is the clock that the daemon goes by: the last run began two hours ago.
    local began
    began=$(inside gitopsd history --json -n 1 | sed -n 's/.*"started_ms": \([0-9]*\).*/\1/p' | head -n 1)
    [ "$began" -lt $((($(date +%s) - 7000) * 1000)) ]
    echo +86400 | inside tee /run/gitopsd-clock >/dev/null
    healed 'with the clock a day ahead'
    eventually 60 'all is ready' ready
    script <<'I'
rm /run/systemd/system/gitopsd.service.d/90-clock.conf
systemctl daemon-reload
I
    # Back again, and the record is of tomorrow.
    restart
    healed 'with the clock set right'
    still >"$work/after"
    # A heal moves generations of the object that was edited, and of no other.
    diff <(grep -v blaster-dev "$work/before") <(grep -v blaster-dev "$work/after")
}

a_journal_that_is_gone_stops_nothing() {
    local main begun
    main=$(inside systemctl show -P MainPID gitopsd)
    inside systemctl stop systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service 2>/dev/null
    healed 'without a journal'
    sleep 1
    inside systemctl start systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service
    eventually 60 'all is ready' ready
    begun=$(inside date +%s)
    healed 'with the journal back'
    # The same process, and its lines are there again.
    eventually 20 'the heal is told' journal_has --since="@$begun" MESSAGE_ID=c705060768a7e066b52a5eb3ec071391 "_PID=$main"
}

a_damaged_database_is_put_aside_and_the_inventory_rebuilt() {
    local tree=$work/repos/flux-config
    maps 2 >"$tree/clusters/my-cluster/many.yaml"
    push 'two objects'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1
    many 2
    still | grep -v ' many-' >"$work/before"
    inside systemctl stop gitopsd
    # They leave Git while nobody watches, no record says whose they were, and with the mirrors goes
    # the revision that still had them.
    rm "$tree/clusters/my-cluster/many.yaml"
    push 'and away with them'
    dd if=/dev/urandom of="$root/var/lib/gitopsd/history.db" bs=4096 count=64 conv=notrunc status=none
    rm -rf "$root"/var/lib/gitopsd/history.db-* "$root"/var/lib/gitopsd/mirrors
    restart
    holds damaged inside journalctl -q -u gitopsd MESSAGE_ID=d31187a8ad5e8de66fe2a2b8ca3e8b20
    eventually 60 'what left Git meanwhile is gone' many 0
    told InventoryRegained GITOPSD_KUSTOMIZATION
    still >"$work/after"
    diff "$work/before" "$work/after"
    # What it owns is known again: what leaves Git still goes.
    git -C "$tree" rm -q -r clusters/my-cluster/blaster-prod
    push 'prod goes'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 90 'what left Git is gone' gone deployment blaster-prod
}

gone() {
    [ -z "$(inside kubectl -n blaster get "$1" "$2" --ignore-not-found -o name)" ]
}

a_power_cut_in_the_middle_of_an_apply_converges_after_the_boot() {
    local image=$work/state.img
    # The state on a disk of its own, written past the page cache: a copy of the backing file is what
    # a power cut would have left.
    inside systemctl stop gitopsd
    truncate -s 96M "$image"
    mkfs.ext4 -q "$image"
    mkdir -p "$work/mnt"
    mount -o loop "$image" "$work/mnt"
    cp -a "$root/var/lib/gitopsd/." "$work/mnt/"
    chown --reference="$root/var/lib/gitopsd" "$work/mnt"
    chmod 0700 "$work/mnt"
    umount "$work/mnt"
    machine_stop
    local device
    device=$(losetup -f --show --direct-io=on "$image")
    mount "$device" "$root/var/lib/gitopsd"
    machine_boot
    eventually 120 'all is ready on the disk of its own' ready
    # Forty new objects: the cut comes while they are written.
    maps 40 >"$work/repos/flux-config/clusters/my-cluster/many.yaml"
    push 'forty objects'
    inside gitopsd reconcile --with-source >/dev/null 2>&1 &
    eventually 60 'the apply has begun' holds many- inside kubectl -n default get configmaps -o name
    machine_cut
    wait $! 2>/dev/null || true
    cp "$image" "$image.cut"
    umount "$root/var/lib/gitopsd"
    losetup -d "$device"
    device=$(losetup -f --show --direct-io=on "$image.cut")
    mount "$device" "$root/var/lib/gitopsd"
    machine_boot
    eventually 120 'all is ready after the cut' ready
    eventually 60 'all forty are there' many 40
    rm "$work/repos/flux-config/clusters/my-cluster/many.yaml"
    push 'and away with them'
    inside gitopsd reconcile --with-source >/dev/null 2>&1 || true
    confirmed
    eventually 60 'none is left behind' many 0
    machine_stop
    umount "$root/var/lib/gitopsd"
    losetup -d "$device"
    machine_boot
    eventually 120 'all is ready' ready
}

# maps COUNT: as many ConfigMaps.
maps() {
    local name
    for name in $(seq "$1"); do
        printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: many-%s\n  namespace: default\ndata:\n  a: b\n---\n' "$name"
    done
}

# many COUNT: so many of them are there.
many() {
    [ "$(inside kubectl -n default get configmaps -o name | grep -c many-)" = "$1" ]
}

# confirmed: most objects of an owner going at once is more than half, and the guard asks.
confirmed() {
    local digest
    digest=$(inside gitopsd status --json | sed -n 's/.*"digest": "\([^"]*\)".*/\1/p' | head -n 1)
    [ -z "$digest" ] || inside gitopsd confirm "$digest" >/dev/null
}
