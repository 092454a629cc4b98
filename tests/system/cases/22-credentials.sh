# What lies in /etc/gitopsd/credentials reaches the service, and nobody else.

CASES+=(
    git_over_https_is_read_with_the_password_the_token_and_the_ca_of_the_unit
    the_token_of_cloudflare_is_the_services_alone
)

# outside: the servers of outside.py, with a certificate of a CA that nobody knows and secrets that
# were never used before.
outside() {
    outside=$work/outside
    rm -rf "$outside"
    mkdir -p "$outside"
    (
        cd "$outside"
        printf '[req]\ndistinguished_name = name\n[name]\n' >req
        certify() { openssl req -config req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "$@" 2>>openssl; }
        certify -subj '/CN=a CA of ours' -keyout ca.key -out ca.pem -addext basicConstraints=critical,CA:TRUE
        certify -subj /CN=outside -keyout key.pem -out certificate.pem -CA ca.pem -CAkey ca.key \
            -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:127.0.0.1
        cat certificate.pem key.pem >server.pem
        for name in password token cloudflare; do
            printf '%s-of-the-test-%s' $name "$(head -c 12 /dev/urandom | base64 | tr +/ ab)" >$name
        done
        : >log
    )
    neighbour python3 "$here/outside.py" "$outside" "$root/srv/git"
    eventually 10 'the servers outside are there' inside bash -c ': </dev/tcp/127.0.0.1/8443 </dev/tcp/127.0.0.1/8080'
}

# given NAME: the right one of that name, as a person would write it: with the end of the line.
given() {
    { cat "$outside/$1" && echo; } | inside install -m 0400 /dev/stdin "/etc/gitopsd/credentials/$2"
}

# asked LINE: a request that stands so at the beginning of the servers' log.
asked() {
    grep -q "^$1" "$outside/log"
}

# Nothing that was said, stored or is shown holds the secret; systemd's directory for the unit does.
only_in_the_credentials() {
    local secret
    secret=$(cat "$outside/$1")
    script "$secret" "$2" <<'I'
secret=$1 file=/run/credentials/gitopsd.service/$2
[ "$(cat "$file")" = "$secret" ]
[ "$(findmnt -no FSTYPE -T "$file")" = ramfs ] || [ "$(findmnt -no FSTYPE -T "$file")" = tmpfs ]
not setpriv --reuid=nobody --regid=gitopsd --clear-groups cat "$file" 2>/dev/null
setpriv --reuid=gitopsd --regid=gitopsd --clear-groups cat "$file" >/dev/null
pid=$(systemctl show -P MainPID gitopsd)
tr '\0' '\n' <"/proc/$pid/environ" >/tmp/seen
grep -qx CREDENTIALS_DIRECTORY=/run/credentials/gitopsd.service /tmp/seen
tr '\0' ' ' <"/proc/$pid/cmdline" >>/tmp/seen
systemctl show gitopsd >>/tmp/seen
systemctl status gitopsd >>/tmp/seen || true
gitopsd status >>/tmp/seen || true
gitopsd status --json >>/tmp/seen || true
gitopsd edge >>/tmp/seen 2>&1 || true
gitopsd check >>/tmp/seen 2>&1 || true
journalctl --sync
journalctl -q -o export >>/tmp/seen
[ "$(wc -c </tmp/seen)" -gt 100000 ]
not grep -aF -- "$secret" /tmp/seen
not grep -rlaF -- "$secret" /var/lib/gitopsd /run/gitopsd /run/systemd /etc/systemd
rm /tmp/seen
I
}

git_over_https_is_read_with_the_password_the_token_and_the_ca_of_the_unit() {
    local tree=$work/repos/flux-config
    outside
    given cloudflare git-password
    script <<'I'
cat >/etc/gitopsd/config.d/60-https.yaml <<'Y'
root:
  url: https://127.0.0.1:8443/infra/flux-config.git
  credentials:
    username: someone
Y
systemctl reload gitopsd
I
    # A server that nobody vouches for is asked nothing, and told no password.
    eventually 30 'the CA is missed' holds 'the certificate of https://127.0.0.1:8443/infra/flux-config.git is not trusted' \
        inside gitopsd status
    [ ! -s "$outside/log" ]
    inside install -m 0444 /dev/stdin /etc/gitopsd/credentials/git-ca <"$outside/ca.pem"
    inside systemctl reload gitopsd
    eventually 30 'another password is refused' holds 'refused the credentials' inside gitopsd status
    asked 'another 401 /infra/flux-config.git/info/refs'
    # The right one, and from now on every source by this way.
    grep -rlF ssh://git@127.0.0.1/srv/git/ "$tree" --include=*.yaml |
        xargs sed -i 's#ssh://git@127.0.0.1/srv/git/#https://127.0.0.1:8443/#'
    push 'every source over https'
    given password git-password
    inside systemctl restart gitopsd
    eventually 60 'the password is taken' asked 'password 200 /infra/flux-config.git/git-upload-pack'
    eventually 60 'other sources of that server too' asked 'password 200 /games/blaster.git/git-upload-pack'
    eventually 60 'all is ready over https' ready
    only_in_the_credentials password git-password
    # A token instead.
    inside rm /etc/gitopsd/credentials/git-password
    inside sed -i '/credentials:/,$d' /etc/gitopsd/config.d/60-https.yaml
    given token git-token
    maps 1 >"$tree/clusters/my-cluster/many.yaml"
    push 'an object, by a token'
    inside systemctl restart gitopsd
    eventually 60 'it is applied' many 1
    asked 'token 200 /infra/flux-config.git/git-upload-pack'
    only_in_the_credentials token git-token
    # Back to what the other cases go by.
    git -C "$tree" revert --no-commit HEAD HEAD~1
    push 'every source over ssh'
    inside rm /etc/gitopsd/config.d/60-https.yaml /etc/gitopsd/credentials/git-token /etc/gitopsd/credentials/git-ca
    restart
    eventually 60 'the object is gone' many 0
    neighbours_go
}

the_token_of_cloudflare_is_the_services_alone() {
    outside
    given cloudflare cloudflare-token
    script <<'I'
cat >/etc/gitopsd/config.d/60-edge.yaml <<'Y'
edge:
  cloudflare:
    zones: [test.invalid]
    url: http://127.0.0.1:8080/client/v4
  # The repository brings a connector.
  connector:
    by: repository
  tunnel:
    name: box
    adopt: true
  hosts: [blaster.test.invalid]
Y
systemctl restart gitopsd
I
    # The API says no to it, which is told; but it was asked with the very token.
    eventually 60 'the API is asked' asked 'cloudflare 401 /client/v4/zones'
    eventually 30 'the refusal is told' holds 'the API token is refused: Invalid API Token' inside gitopsd edge
    eventually 30 'in the journal too' holds 'edge: ' inside journalctl -q -u gitopsd -p warning -n 5
    only_in_the_credentials cloudflare cloudflare-token
    script <<'I'
rm /etc/gitopsd/config.d/60-edge.yaml /etc/gitopsd/credentials/cloudflare-token
I
    restart
    neighbours_go
}
