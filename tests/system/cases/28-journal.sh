# What the journal says of everything that can happen.

CASES+=(
    what_is_wrong_in_git_is_told_once_each_with_its_fields
    a_fight_over_a_field_and_a_second_owner_are_told
    another_cluster_is_told_and_nothing_is_pruned_in_it
    an_image_that_is_chosen_and_committed_is_told_and_so_is_a_registry_that_fails
    a_base_outside_the_source_that_cannot_be_asked_after_is_told
    every_kind_of_event_was_in_the_journal_and_is_explained
)

# told KIND [FIELD…]: the journal has an event of this kind, by the name of its constant, with these
# fields on it.
told() {
    inside journalctl --sync
    inside journalctl -q -u gitopsd -o json >"$work/journal"
    python3 "$here/journal.py" "$work/journal" "$@"
}

# once SINCE KIND…: since then the journal has events of each of these kinds, and none twice.
once() {
    inside journalctl --sync
    inside journalctl -q -u gitopsd -o json --since "@$1" >"$work/journal"
    python3 "$here/journal.py" "$work/journal" --once "${@:2}"
}

# A Kustomization of flux-config for a directory of it.
kustomization() {
    cat <<Y
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: $1
  namespace: flux-system
spec:
  interval: 10m
  retryInterval: 10m
  timeout: 1m
  sourceRef:
    kind: GitRepository
    name: flux-system
  path: ./$1
  prune: true
  decryption:
    provider: sops
    secretRef:
      name: sops-age
---
Y
}

what_is_wrong_in_git_is_told_once_each_with_its_fields() {
    local tree=$work/repos/flux-config name began
    began=$(inside date +%s)
    # Two that want one object differently, one without a directory, one with a Secret in plain text,
    # a sealed file that was edited and a claim, one with a sealed file that does not open, and a kind
    # that is not supported.
    for name in one other; do
        mkdir -p "$tree/$name"
        printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: contended\n  namespace: default\ndata:\n  by: %s\n' $name \
            >"$tree/$name/map.yaml"
    done
    mkdir -p "$tree/odd"
    cat >"$tree/odd/odd.yaml" <<'Y'
apiVersion: v1
kind: Secret
metadata:
  name: plain
  namespace: default
stringData:
  word: not-a-secret-any-more
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: precious
  namespace: default
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 1Gi
Y
    sed 's/^    name: blaster-env$/    name: edited/; s/^    namespace: blaster$/    namespace: default/' \
        "$work/repos/games/blaster/k8s/dev/secret.enc.yaml" >"$tree/odd/secret.enc.yaml"
    mkdir -p "$tree/locked"
    sed 's/data:/data:AAAA/; s/^    name: blaster-env$/    name: locked/' \
        "$work/repos/games/blaster/k8s/dev/secret.enc.yaml" >"$tree/locked/secret.enc.yaml"
    {
        for name in one other odd locked nowhere; do kustomization $name; done
        printf 'apiVersion: source.toolkit.fluxcd.io/v1\nkind: Bucket\nmetadata:\n  name: pail\n  namespace: flux-system\nspec:\n  bucketName: b\n  endpoint: e\n  interval: 1h\n'
    } >"$tree/clusters/my-cluster/trouble.yaml"
    push 'much that is wrong'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    told ClaimRefused GITOPSD_KUSTOMIZATION GITOPSD_REVISION GITOPSD_SOURCE
    told RunFailed GITOPSD_KUSTOMIZATION GITOPSD_REVISION GITOPSD_SOURCE
    told SealedFailed GITOPSD_KUSTOMIZATION GITOPSD_REVISION GITOPSD_SOURCE
    holds 'locked/secret.enc.yaml' inside gitopsd status
    told PlaintextSecret GITOPSD_KUSTOMIZATION
    told MacWrong GITOPSD_KUSTOMIZATION
    told Unsupported GITOPSD_OBJECT
    # Once more changes nothing, and says nothing new of it.
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    once "$began" PlaintextSecret MacWrong Unsupported RunFailed SealedFailed ClaimRefused
    not grep -F not-a-secret-any-more "$work/journal"
    # What holds data is not deleted without a word.
    rm -r "$tree/odd/odd.yaml" "$tree/one" "$tree/other" "$tree/locked"
    for name in odd; do kustomization $name; done >"$tree/clusters/my-cluster/trouble.yaml"
    push 'most of it is mended'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    told PruneHeld GITOPSD_KUSTOMIZATION
    eventually 60 'what has left is told' told Departed GITOPSD_KUSTOMIZATION
    # The next run judges them again, and has nothing new to say of it.
    maps 1 >"$tree/odd/many.yaml"
    push 'something beside the claim'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'it is applied' many 1
    once "$began" PruneHeld
    told Pruned GITOPSD_KUSTOMIZATION GITOPSD_OBJECT GITOPSD_REVISION GITOPSD_RUN GITOPSD_ACTION
    confirmed
    eventually 60 'the claim is gone' nothing pvc precious
    rm -r "$tree/odd" "$tree/clusters/my-cluster/trouble.yaml"
    push 'all of it is mended'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'all is ready' ready
    # Health that is lost and comes back long after the run.
    certificate True
    eventually 60 'it is told' told HealthFailed GITOPSD_KUSTOMIZATION
    certificate False
    eventually 60 'and its end too' told HealthPassed GITOPSD_KUSTOMIZATION
    inside gitopsd suspend blaster --reason 'to see it told' >/dev/null
    told Suspended GITOPSD_KUSTOMIZATION
    inside gitopsd resume blaster >/dev/null
    told Resumed GITOPSD_KUSTOMIZATION
    eventually 60 'all is ready' ready
}

nothing() {
    [ -z "$(inside kubectl -n default get "$1" "$2" --ignore-not-found -o name)" ]
}

# certificate True: what its controller would say of a certificate that it has given up; False: of one
# that is well.
certificate() {
    inside kubectl -n ingress-nginx patch certificate wildcard-reids --subresource=status --type=merge \
        -p "{\"status\":{\"conditions\":[{\"type\":\"Stalled\",\"status\":\"$1\",\"reason\":\"Test\",\"message\":\"by hand\"}]}}" >/dev/null
}

a_fight_over_a_field_and_a_second_owner_are_told() {
    local time
    restart
    for time in 1 2 3; do
        inside kubectl -n blaster scale deployment blaster-dev --replicas=7 >/dev/null
        eventually 30 "heal $time" unscaled
    done
    told Conflict GITOPSD_KUSTOMIZATION GITOPSD_OBJECT
    holds 'kubectl' inside gitopsd status
    script <<'I'
kubectl create namespace flux-system --dry-run=client -o yaml | kubectl apply -f - >/dev/null 2>&1
kubectl -n flux-system create deployment kustomize-controller --image=registry.test.invalid/flux:1 >/dev/null
kubectl -n flux-system label deployment kustomize-controller app.kubernetes.io/part-of=flux >/dev/null
systemctl restart gitopsd
I
    eventually 60 'Flux is seen' told SecondOwner
    holds 'two owners' inside systemctl status gitopsd
    inside kubectl -n flux-system delete deployment kustomize-controller >/dev/null
    eventually 60 'all is ready again' ready
}

another_cluster_is_told_and_nothing_is_pruned_in_it() {
    still >"$work/before"
    script <<'I'
systemctl stop k3s
mv /var/lib/k3s-standin /var/lib/k3s-standin.kept
systemctl start k3s
I
    eventually 90 'it is told' told ClusterChanged
    script <<'I'
systemctl stop k3s
rm -rf /var/lib/k3s-standin
mv /var/lib/k3s-standin.kept /var/lib/k3s-standin
systemctl start k3s
I
    eventually 90 'all is ready again' ready
    still >"$work/after"
    diff "$work/before" "$work/after"
}

an_image_that_is_chosen_and_committed_is_told_and_so_is_a_registry_that_fails() {
    local tree=$work/repos/flux-config image=clusters/my-cluster/blaster/20-blaster-image.yaml
    outside
    # The tenth of a day is newer than the ninth, which Flux sees otherwise.
    printf '%s\n' dev-20261122.{3,9,10} >"$outside/tags"
    sed 's#registry.test.invalid/\(.*\)#127.0.0.1:8080/\1\n  insecure: true#' "tests/examples/flux-config/$image" >"$tree/$image"
    push 'images of the game'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'the choice is told' told ImageChosen GITOPSD_OBJECT
    told ImageOrder GITOPSD_OBJECT
    eventually 60 'the commit is told' told ImagePushed GITOPSD_OBJECT GITOPSD_REVISION
    eventually 60 'it is in the cluster' holds :dev-20261122.10 \
        inside kubectl -n blaster get deployment blaster-dev -o 'jsonpath={.spec.template.spec.containers[0].image}'
    neighbours_go
    inside gitopsd reconcile image blaster-dev >"$work/last" 2>&1 || true
    eventually 60 'the failure is told' told ImageFailed GITOPSD_OBJECT
    holds 127.0.0.1:8080 inside gitopsd images
    rm "$tree/$image"
    push 'and no image objects again'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'all is ready' ready
}

a_base_outside_the_source_that_cannot_be_asked_after_is_told() {
    local tree=$work/repos/flux-config
    outside
    maps 1 >"$outside/base.yaml"
    mkdir -p "$tree/remote"
    printf 'resources: ["http://127.0.0.1:8080/base.yaml"]\n' >"$tree/remote/kustomization.yaml"
    # It is asked after when it is older than that.
    kustomization remote | sed 's/^  interval: .*/  interval: 5s/' >"$tree/clusters/my-cluster/remote.yaml"
    push 'a base from elsewhere'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    eventually 60 'it is applied' many 1
    neighbours_go
    # All else is as it was: it is told that the copy is old, and no more once it is not.
    eventually 30 'the copy is old' holds 'the last copy stands' inside gitopsd status
    told OldCopy GITOPSD_KUSTOMIZATION
    neighbour python3 "$here/outside.py" "$outside" "$root/srv/git"
    eventually 30 'the copy is new' not holds 'the last copy stands' inside gitopsd status
    neighbours_go
    eventually 30 'the copy is old again' holds 'the last copy stands' inside gitopsd status
    printf 'commonAnnotations: {with: the last copy}\n' >>"$tree/remote/kustomization.yaml"
    push 'a change while it is away'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    # The copy stands, and what is ours goes on.
    holds 'with: the last copy' inside kubectl -n default get configmap many-1 -o yaml
    holds 'the last copy stands' inside gitopsd status
    rm -r "$tree/remote" "$tree/clusters/my-cluster/remote.yaml"
    push 'and away with it'
    inside gitopsd reconcile --with-source >"$work/last" 2>&1 || true
    confirmed
    eventually 60 'it is gone' many 0
    eventually 60 'all is ready' ready
}

every_kind_of_event_was_in_the_journal_and_is_explained() {
    inside journalctl --sync
    { cat "$work/journal.kept" 2>/dev/null || true; inside journalctl -q -u gitopsd -o json; } >"$work/journal"
    python3 "$here/journal.py" "$work/journal" --all
    inside journalctl -q -x -u gitopsd >"$work/explained"
    # A subject of the catalog stands below each.
    grep -qE '^(--|░░) Subject: No repository is configured$' "$work/explained"
    not grep -q '@GITOPSD_REVISION@ was fetched' "$work/explained"
}
