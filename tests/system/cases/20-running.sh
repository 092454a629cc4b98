# A box in its days: k3s, the network and the configuration come and go.

CASES+=(
    the_journal_tells_each_event_once_with_its_fields
    the_hardening_of_the_unit_is_in_force_on_the_process
    a_healthy_idle_daemon_says_nothing_and_writes_nothing
    a_kubeconfig_that_k3s_writes_anew_is_handed_over
    a_wrong_configuration_is_refused_at_reload_and_a_right_one_taken
    a_credential_is_handed_over_at_reload
    what_is_handed_over_in_the_middle_of_a_run_loses_none
    keys_that_others_can_read_are_refused_with_the_chmod_to_run
    an_age_key_that_others_can_read_is_refused_until_the_chmod_is_run
    a_key_sealed_to_this_machine_opens_for_the_unit
    k3s_may_be_away_for_a_while_without_noise
    the_unit_starts_before_k3s_and_waits_without_noise
    a_wedged_loop_is_restarted_by_systemd
    a_reboot_without_a_network_keeps_to_the_last_revision_and_heals
)

# journal_has FIELD=VALUE…: an entry of ours with these fields.
journal_has() {
    [ -n "$(inside journalctl -q -u gitopsd -o json "$@" | head -n 1)" ]
}

the_journal_tells_each_event_once_with_its_fields() {
    local run
    run=$(inside gitopsd history --json blaster | sed -n 's/.*"run": "\([^"]*\)".*/\1/p' | head -n 1)
    [ -n "$run" ]
    inside journalctl -q -u gitopsd -o json >"$work/journal"
    python3 - "$work/journal" packaging/usr/lib/systemd/catalog/gitopsd.catalog <<'P'
import collections, json, re, sys
entries = [json.loads(line) for line in open(sys.argv[1])]
catalog = dict(re.findall(r"^-- ([0-9a-f]{32})\nSubject: (.*)$", open(sys.argv[2]).read(), re.M))
ours = [e for e in entries if e.get("SYSLOG_IDENTIFIER") == "gitopsd" and "MESSAGE_ID" in e]
kinds = collections.Counter(catalog[e["MESSAGE_ID"]] for e in ours)
def some(field): assert any(field in e for e in ours), f"no entry has {field}"
for field in ["GITOPSD_KUSTOMIZATION", "GITOPSD_SOURCE", "GITOPSD_REVISION", "GITOPSD_OBJECT", "GITOPSD_RUN", "GITOPSD_ACTION"]:
    some(field)
for subject in ["gitopsd is ready", "No repository is configured", "A source has a new revision"]:
    assert kinds[subject], f"{subject}: {dict(kinds)}"
# The same event is never logged twice: one object changes once in one run.
lines = collections.Counter((e["MESSAGE"], e.get("GITOPSD_RUN"), e["_PID"]) for e in ours if e.get("GITOPSD_OBJECT"))
twice = [line for line, n in lines.items() if n > 1]
assert not twice, twice
bad = [e["MESSAGE"] for e in entries if int(e.get("PRIORITY", 6)) <= 3]
assert not bad, bad
print(f"    {len(entries)} lines, of {len(kinds)} kinds", file=sys.stderr)
P
    # journalctl -x explains them.
    holds 'See each change with' inside journalctl -x -u gitopsd
}

the_hardening_of_the_unit_is_in_force_on_the_process() {
    script <<'I'
pid=$(systemctl show -P MainPID gitopsd)
cd "/proc/$pid"
[ "$(cat comm)" = gitopsd ]
[ -z "$(systemctl show -P DropInPaths gitopsd)" ]
# As the kernel has it.
said() { sed -n "s/^$1:[[:space:]]*//p" status; }
for set in CapInh CapPrm CapEff CapBnd CapAmb; do [ "$(said $set)" = 0000000000000000 ]; done
[ "$(said NoNewPrivs)" = 1 ]
[ "$(said Seccomp)" = 2 ]
[ "$(said Uid | tr '\t' '\n' | sort -u)" = "$(id -u gitopsd)" ]
[ "$(said Gid | tr '\t' '\n' | sort -u)" = "$(id -g gitopsd)" ]
[ "$(said Umask)" = 0077 ]
grep -qE '^Max core file size +0 +0 ' limits
grep -qE '^Max open files +16384 +16384 ' limits
# A lower one than its own is systemd's to give only with CAP_SYS_RESOURCE, which not every container has.
if [ $((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/1/status) >> 24 & 1)) = 1 ]; then
    [ "$(cat oom_score_adj)" = -500 ]
else
    echo '    no CAP_SYS_RESOURCE in here: OOMScoreAdjust is read from systemd alone' >&2
fi
# What it is held to, as systemd has it, and as the kernel where the machine was given such a group.
is() { [ "$(systemctl show -P "$1" gitopsd)" = "$2" ]; }
is MemoryMax $((1280 * 1024 * 1024))
is MemorySwapMax 0
is TasksMax 256
is OOMScoreAdjust -500
is LimitCORE 0
is LimitCORESoft 0
is WatchdogUSec 1min
group=/sys/fs/cgroup$(sed -n 's/^0:://p' cgroup)
if [ -e "$group/memory.max" ]; then
    [ "$(cat "$group/memory.max")" = $((1280 * 1024 * 1024)) ]
    [ "$(cat "$group/memory.swap.max")" = 0 ]
else
    echo '    no memory controller in here: MemoryMax is read from systemd alone' >&2
fi
# The world as it sees it: root itself could write nothing there but the state and the sockets; nobody's
# home is there, no device but those that everybody has, and no other process.
seen() { nsenter -t "$pid" -m "$@"; }
as_it() { seen setpriv --reuid=gitopsd --regid=gitopsd --clear-groups "$@"; }
as_it touch /var/lib/gitopsd/here /run/gitopsd/here
rm /var/lib/gitopsd/here /run/gitopsd/here
for place in / /etc/gitopsd /usr/bin /opt /var/lib /var/log /sys/kernel; do
    not seen touch "$place/here" 2>/tmp/said
    grep -q 'Read-only file system' /tmp/said
done
for place in /root /home; do
    not as_it ls $place 2>/tmp/said
    grep -q 'Permission denied' /tmp/said
done
[ -z "$(seen find /dev -xdev -type b)" ]
[ "$(seen find /dev -xdev -type c -printf '%f ' | tr ' ' '\n' | sort | xargs)" = 'full null random tty urandom zero' ]
[ "$(as_it find /proc -maxdepth 1 -name '[0-9]*' -user root)" = '' ]
I
}

a_healthy_idle_daemon_says_nothing_and_writes_nothing() {
    local begun
    eventually 60 'all is ready' ready
    # What follows a run by a second or two, such as the search for what no record knows.
    sleep 4
    begun=$(polls)
    idle >"$work/before"
    sleep 20
    idle >"$work/after"
    diff "$work/before" "$work/after"
    # It was not asleep: Git was asked meanwhile, every 10 s, and had nothing new.
    [ "$(polls)" -gt "$begun" ]
}

# idle: what would move if the daemon said something or wrote to a disk.
idle() {
    script <<'I'
systemctl show -P MainPID gitopsd
journalctl --sync
journalctl -q -u gitopsd -o cat | wc -l
grep write_bytes: "/proc/$(systemctl show -P MainPID gitopsd)/io"
find /var/lib/gitopsd -printf '%p %s %T@ %i\n' | sort
find /etc/gitopsd -newer /proc/1 -printf '%p %s %T@\n' | sort
I
}

# polls: how often Git was asked.
polls() {
    inside journalctl -q -u ssh -o cat | grep -c 'Accepted publickey for git'
}

a_kubeconfig_that_k3s_writes_anew_is_handed_over() {
    local before after main
    before=$(inside sha256sum /etc/rancher/k3s/k3s.yaml)
    main=$(inside systemctl show -P MainPID gitopsd)
    inside systemctl restart k3s
    after=$(inside sha256sum /etc/rancher/k3s/k3s.yaml)
    [ "$before" != "$after" ]
    eventually 90 'all is ready again' ready
    # Same process, same start of the unit, no failed run.
    [ "$(inside systemctl show -P MainPID gitopsd)" = "$main" ]
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    healed 'after the restart of k3s'
    # What is handed over unchanged starts nothing anew.
    holds 'nothing has changed' inside gitopsd reload --credential kubeconfig=/etc/rancher/k3s/k3s.yaml
    # A k3s that crashes over and over does not tire the watch.
    script <<'I'
for n in $(seq 12); do
    cp -p /etc/rancher/k3s/k3s.yaml /etc/rancher/k3s/k3s.yaml.new
    mv /etc/rancher/k3s/k3s.yaml.new /etc/rancher/k3s/k3s.yaml
    sleep 0.1
done
sleep 1
systemctl is-active -q gitopsd-kubeconfig.path
[ "$(systemctl --failed --quiet)" = '' ]
I
}

# healed WHEN: somebody edits, and the daemon undoes it. Another field each time: three heals of one
# within ten minutes are a fight, and slower from then on.
healed() {
    local object label=app.kubernetes.io/name
    healings=$((${healings:-0} + 1))
    case $((healings % 4)) in
    0)
        inside kubectl -n blaster scale deployment blaster-dev --replicas=7 >/dev/null
        eventually 30 "drift of replicas is healed $1" unscaled
        return
        ;;
    1) object=deployment/blaster-dev ;;
    2) object=service/blaster-dev ;;
    3) object=namespace/blaster label=app.kubernetes.io/part-of ;;
    esac
    inside kubectl -n blaster label "$object" $label=by-hand --overwrite >/dev/null
    eventually 30 "drift of $object is healed $1" unlabelled "$object" $label
}

unlabelled() {
    local value
    value=$(inside kubectl -n blaster get "$1" -o "jsonpath={.metadata.labels.${2//./\\.}}")
    [ "$value" = blaster ]
}

unscaled() {
    [ "$(inside kubectl -n blaster get deployment blaster-dev -o 'jsonpath={.spec.replicas}')" != 7 ]
}

a_wrong_configuration_is_refused_at_reload_and_a_right_one_taken() {
    local main
    main=$(inside systemctl show -P MainPID gitopsd)
    script <<'I'
printf 'limits:\n  workers: many\n  color: blue\n' >/etc/gitopsd/config.d/90-test.yaml
not systemctl reload gitopsd 2>/dev/null
journalctl --sync
journalctl -q -u gitopsd -n 30 >/tmp/said
grep -q '90-test.yaml:2: limits.workers' /tmp/said
grep -q '90-test.yaml:3: limits.color' /tmp/said
holds 'stays in force' journalctl -q -u gitopsd MESSAGE_ID=25e37f7760b4be7b1411d92b566be1ea
systemctl is-active -q gitopsd
gitopsd status >/dev/null
printf 'limits:\n  workers: 3\n' >/etc/gitopsd/config.d/90-test.yaml
systemctl reload gitopsd
I
    eventually 60 'all is ready again' ready
    [ "$(inside systemctl show -P MainPID gitopsd)" = "$main" ]
    [ "$(inside cat "/proc/$main/comm")" = gitopsd ]
    holds 'config' inside journalctl -q -u gitopsd MESSAGE_ID=a7b3bf8de5dd80698147857f3879e7e6
    # Nothing has changed since: nothing happens.
    local started
    started=$(inside gitopsd status --json | grep started_ms)
    inside systemctl reload gitopsd
    [ "$(inside gitopsd status --json | grep started_ms)" = "$started" ]
    inside rm /etc/gitopsd/config.d/90-test.yaml
    inside systemctl reload gitopsd
    eventually 60 'all is ready again' ready
}

a_credential_is_handed_over_at_reload() {
    script <<'I'
cp -p /etc/gitopsd/credentials/age-key /root/age-key.kept
: >/etc/gitopsd/credentials/age-key
systemctl reload gitopsd
I
    sleep 1
    inside gitopsd reconcile --with-source >/dev/null 2>&1 || true
    not ready
    holds 'age' inside gitopsd status
    script <<'I'
mv /root/age-key.kept /etc/gitopsd/credentials/age-key
systemctl reload gitopsd
I
    inside gitopsd reconcile >/dev/null 2>&1 || true
    eventually 60 'all is ready again' ready
    # On a tmpfs, for its user alone, and nowhere else.
    script <<'I'
cd /run/gitopsd
[ "$(stat -c '%a %U' credentials-*/age-key)" = '400 gitopsd' ]
[ "$(findmnt -no FSTYPE -T /run/gitopsd)" = tmpfs ]
[ "$(ls -d credentials-* | wc -l)" = 1 ]
not grep -rqaF "$(grep -o 'AGE-SECRET-KEY-1[A-Z0-9]*' /etc/gitopsd/credentials/age-key)" /var/lib/gitopsd /var/log/journal
I
}

# started: when the daemon was, whatever else its status says.
started() {
    { inside gitopsd status --json || true; } | grep started_ms || true
}

# anew TIME: it answers, and was started at another time.
anew() {
    local now
    now=$(started)
    [ -n "$now" ] && [ "$now" != "$1" ]
}

# runs_of NAME: its runs, newest first, with how they ended.
runs_of() {
    inside gitopsd history --json "$1" |
        python3 -c 'import json, sys; [print(run["run"], run["verdict"]) for run in json.load(sys.stdin)]'
}

what_is_handed_over_in_the_middle_of_a_run_loses_none() {
    local run verdict before
    under_way
    runs_of slow >"$work/runs"
    read -r run verdict <"$work/runs"
    [ "$verdict" = running ]
    # A kubeconfig that is written anew, by way of the path unit.
    before=$(started)
    script <<'I'
cd /etc/rancher/k3s
{ cat k3s.yaml; echo '# written anew'; } >k3s.yaml.new
chmod 0600 k3s.yaml.new
mv k3s.yaml.new k3s.yaml
I
    eventually 60 'the kubeconfig is taken' anew "$before"
    eventually 60 'the run goes on' running
    # And a configuration.
    before=$(started)
    script <<'I'
printf 'limits:\n  workers: 3\n' >/etc/gitopsd/config.d/90-test.yaml
systemctl reload gitopsd
rm /etc/gitopsd/config.d/90-test.yaml
I
    anew "$before"
    eventually 60 'the run goes on again' running
    mended
    # The run that was cut short has an end in the record, none has failed, and the last one succeeded.
    runs_of slow >"$work/runs"
    grep -q -E "^$run (cancelled|interrupted)\$" "$work/runs" || die "of run $run: $(cat "$work/runs")"
    not grep -q -e ' failed$' -e ' running$' "$work/runs"
    read -r run verdict <"$work/runs"
    [ "$verdict" = succeeded ]
    gone_again
    inside systemctl reload gitopsd
    eventually 60 'all is ready again' ready
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
}

keys_that_others_can_read_are_refused_with_the_chmod_to_run() {
    local main
    main=$(inside systemctl show -P MainPID gitopsd)
    script <<'I'
chmod 0644 /etc/gitopsd/credentials/git-identity
not systemctl reload gitopsd 2>/dev/null # nothing in it has changed
# A reload keeps to what was in force, a start is refused for good, and check says the same.
printf 'limits:\n  workers: 3\n' >/etc/gitopsd/config.d/90-test.yaml
not systemctl reload gitopsd 2>/dev/null
rm /etc/gitopsd/config.d/90-test.yaml
journalctl --sync
holds 'chmod 0400 /etc/gitopsd/credentials/git-identity' journalctl -q -u gitopsd -n 10
systemctl is-active -q gitopsd
holds 'chmod 0400 /etc/gitopsd/credentials/git-identity' gitopsd check
not systemctl restart gitopsd 2>/dev/null
[ "$(systemctl show -P ExecMainStatus gitopsd)" = 78 ]
[ "$(systemctl show -P ActiveState gitopsd)" = failed ]
journalctl --sync
holds 'git-identity holds key material and has mode 0644' journalctl -q -u gitopsd -n 10
# init, which would restart it, says so too, and writes nothing.
not gitopsd init --interval 7m --no-recovery </dev/null >/tmp/said 2>&1
grep -q 'chmod 0400 /etc/gitopsd/credentials/git-identity' /tmp/said
not grep -q 7m /etc/gitopsd/config.d/50-init.yaml
chmod 0400 /etc/gitopsd/credentials/git-identity
# So is a start with a wrong configuration, and the journal knows it for an error of that kind.
printf 'limits:\n  workers: many\n' >/etc/gitopsd/config.d/90-test.yaml
not systemctl restart gitopsd 2>/dev/null
[ "$(systemctl show -P ExecMainStatus gitopsd)" = 78 ]
rm /etc/gitopsd/config.d/90-test.yaml
journalctl --sync
holds 'the configuration is wrong: /etc/gitopsd/config.d/90-test.yaml:2' \
    journalctl -q -u gitopsd -p err MESSAGE_ID=25e37f7760b4be7b1411d92b566be1ea
systemctl restart gitopsd
I
    [ "$(inside systemctl show -P MainPID gitopsd)" != "$main" ]
    eventually 60 'all is ready again' ready
}

an_age_key_that_others_can_read_is_refused_until_the_chmod_is_run() {
    script <<'I'
key=/etc/gitopsd/credentials/age-key
for mode in 0644 0602; do
    chmod $mode $key
    not systemctl reload gitopsd 2>/dev/null
    systemctl is-active -q gitopsd # what was handed over before stays in force
    journalctl --sync
    holds "age-key holds key material and has mode $mode" journalctl -q -u gitopsd -n 5
done
not systemctl restart gitopsd 2>/dev/null
[ "$(systemctl show -P ActiveState gitopsd)" = failed ]
[ "$(systemctl show -P ExecMainStatus gitopsd)" = 78 ]
journalctl --sync
journalctl -q -u gitopsd -n 10 -o cat >/tmp/said
grep -q "$key holds key material and has mode 0602" /tmp/said
# What it says is all that is to be done.
order=$(grep -o "chmod [0-7]* $key" /tmp/said | tail -n 1)
holds "$order" gitopsd check
holds "$order" systemctl status gitopsd
$order
gitopsd check >/dev/null
systemctl start gitopsd
kubectl -n blaster delete secret blaster-env-dev >/dev/null
I
    eventually 60 'it opens what is sealed' holds DATABASE_PASSWORD inside kubectl -n blaster get secret blaster-env-dev -o yaml
    eventually 60 'all is ready again' ready
}

k3s_may_be_away_for_a_while_without_noise() {
    local before
    inside systemctl stop k3s
    eventually 30 'the outage is told' not ready
    sleep 5
    before=$(inside journalctl -q -u gitopsd | wc -l)
    sleep 45
    local after
    after=$(inside journalctl -q -u gitopsd | wc -l)
    [ "$((after - before))" -le 2 ] || die "$((after - before)) lines in 45 s without k3s"
    holds 'API server' inside systemctl status gitopsd
    inside systemctl start k3s
    eventually 90 'all is ready again' ready
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
}

the_unit_starts_before_k3s_and_waits_without_noise() {
    local id noise
    # As at the first boot: nobody has written a kubeconfig yet. The start succeeds all the same.
    script <<'I'
systemctl stop gitopsd k3s
rm /etc/rancher/k3s/k3s.yaml
systemctl start gitopsd
I
    id=$(inside systemctl show -P InvocationID gitopsd)
    eventually 30 'the cause is told' holds 'is k3s installed and started?' inside journalctl -q "_SYSTEMD_INVOCATION_ID=$id"
    sleep 10
    noise=$(inside journalctl -q "_SYSTEMD_INVOCATION_ID=$id" -p warning -o cat)
    [ "$(grep -c . <<<"$noise")" -le 1 ] || die "in 10 s before k3s: $noise"
    inside systemctl is-active -q gitopsd
    inside systemctl start k3s
    eventually 90 'all is ready' ready
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    [ "$(inside systemctl show -P InvocationID gitopsd)" = "$id" ]
}

a_wedged_loop_is_restarted_by_systemd() {
    script <<'I'
mkdir -p /run/systemd/system/gitopsd.service.d
printf '[Service]\nWatchdogSec=3s\n' >/run/systemd/system/gitopsd.service.d/90-test.conf
systemctl daemon-reload
systemctl restart gitopsd
I
    eventually 60 'all is ready' ready
    # A process that is stopped does nothing, as a loop that hangs.
    inside bash -c 'kill -STOP "$(systemctl show -P MainPID gitopsd)"'
    eventually 30 'systemd restarts it' holds 1 inside systemctl show -P NRestarts gitopsd
    holds 'Watchdog timeout' inside journalctl -q -u gitopsd
    eventually 60 'all is ready again' ready
    script <<'I'
rm /run/systemd/system/gitopsd.service.d/90-test.conf
systemctl daemon-reload
systemctl restart gitopsd
I
    eventually 60 'all is ready' ready
}

a_reboot_without_a_network_keeps_to_the_last_revision_and_heals() {
    inside systemctl disable -q ssh
    machine_stop
    machine_boot
    not inside systemctl is-active -q ssh
    eventually 120 'the API server answers' inside kubectl get --raw /readyz
    eventually 60 'the last revision is in force' holds 'main@' inside systemctl status gitopsd
    healed 'without the Git server'
    holds 'refused' inside gitopsd status
    inside systemctl enable -q --now ssh
    inside gitopsd reconcile --with-source >/dev/null 2>&1 || true
    eventually 90 'all is ready again' ready
}

a_key_sealed_to_this_machine_opens_for_the_unit() {
    script <<'I'
# On a terminal it is offered where there is something to seal with, here systemd's host key.
systemd-creds setup >/dev/null 2>&1
printf 'y\n\n' | timeout --foreground 120 script -qec 'gitopsd init' --echo never /dev/null >/tmp/seal || { cat /tmp/seal; exit 1; }
grep -q 'Seal keys and credentials to this machine, with the' /tmp/seal
[ -s /etc/gitopsd/credentials/age-key.cred ]
[ ! -e /etc/gitopsd/credentials/age-key ]
grep -q 'LoadCredentialEncrypted=age-key:' /etc/systemd/system/gitopsd.service.d/50-sealed.conf
not grep -rqaF AGE-SECRET-KEY- /etc/gitopsd
I
    eventually 90 'all is ready with sealed keys' ready
    # It really opens: what was rendered before is in memory only, and the process is a new one.
    inside systemctl restart gitopsd
    inside kubectl -n blaster delete secret blaster-env-dev >/dev/null
    eventually 60 'the Secret is made again' holds DATABASE_PASSWORD inside kubectl -n blaster get secret blaster-env-dev -o yaml
    eventually 60 'all is ready' ready
}
