# From the package to a box that follows Git.

CASES+=(
    the_package_is_sound
    a_bare_install_waits_and_says_what_to_do
    init_brings_the_box_up_and_everything_becomes_healthy
    members_of_the_group_look_and_only_root_acts
)

the_package_is_sound() {
    lintian --fail-on error,warning --tag-display-limit 0 "$deb" 2>"$work/lintian"
    # This kernel has no AppArmor: the parser is all that can judge the profile.
    apparmor_parser --skip-kernel-load --skip-cache packaging/etc/apparmor.d/usr.bin.gitopsd
    local needs
    needs=$(dpkg-deb -f "$deb" Depends)
    [ "$needs" = "${needs//[^ ,.0-9a-z()>=+-]/}" ]
    for word in $(printf '%s' "$needs" | sed 's/([^)]*)//g; s/,/ /g'); do
        case $word in
        ca-certificates | systemd | libc6 | libgcc-s1) ;; # libc6 itself depends on libgcc-s1
        *) die "depends on $word" ;;
        esac
    done
    [ "$(dpkg-deb -f "$deb" Recommends)" = openssh-client ]
    [ -z "$(dpkg-deb -f "$deb" Pre-Depends Suggests Enhances)" ]
    # A small card has room for it: less than 48 MiB.
    [ "$(dpkg-deb -f "$deb" Installed-Size)" -lt $((48 * 1024)) ]
    dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/bin/gitopsd >"$work/binary"
    not grep -aqF "$HOME/" "$work/binary"
    readelf -S "$work/binary" >"$work/sections"
    not grep -F -e .symtab -e .debug_info -e .debug_line "$work/sections"
    # Its symbols are in a package of their own, where a debugger looks for this very binary's.
    local id symbols
    id=$(readelf -n "$work/binary" | sed -n 's/^ *Build ID: //p')
    symbols=$(find "$(dirname "${GITOPSD_DEB:-$deb}")" -name "gitopsd-dbgsym_$(dpkg-deb -f "$deb" Version)_*.deb")
    [ -n "$symbols" ]
    dpkg-deb --fsys-tarfile "$symbols" | tar -xO "./usr/lib/debug/.build-id/${id:0:2}/${id:2}.debug" >"$work/symbols"
    readelf -S "$work/symbols" >"$work/sections"
    grep -qF .debug_line "$work/sections"
    [ "$(dpkg-deb -f "$symbols" Depends)" = "gitopsd (= $(dpkg-deb -f "$deb" Version))" ]
}

a_bare_install_waits_and_says_what_to_do() {
    inside apt-get -q install -y "/opt/deb/${deb##*/}" >"$work/apt" 2>&1
    eventually 20 'the unit waits' holds 'not configured: run gitopsd init' inside systemctl status gitopsd
    inside systemctl is-enabled -q gitopsd.service gitopsd-kubeconfig.path
    inside systemctl is-active -q gitopsd.service gitopsd-kubeconfig.path
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    [ "$(inside systemctl --failed --quiet)" = '' ]
    # The package's own test (autopkgtest), in the same machine.
    inside sh -s <debian/tests/installed >/dev/null
    # Nothing is half there: user, directories, pages, completions, catalog.
    script <<'I'
id gitopsd >/dev/null
[ "$(stat -c '%a %U %G' /etc/gitopsd/credentials)" = '710 root gitopsd' ]
man -w 8 gitopsd gitopsd-status gitopsd-reload >/dev/null
export MANWIDTH=200
holds 'Unknown keys are refused' man 5 gitopsd.config
man --warnings 8 gitopsd >/dev/null 2>/tmp/warnings
not grep . /tmp/warnings
# The pages say what the program says of itself.
for verb in '' $(gitopsd --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'); do
    case $verb in help | man) continue ;; esac
    gitopsd $verb --help >/tmp/help
    man -P cat 8 gitopsd${verb:+-$verb} | col -b >/tmp/page
    [ "$(grep -c . /tmp/page)" -gt 20 ]
    for option in $(grep -o -- '--[a-z][a-z-]*' /tmp/help | sort -u); do
        grep -qF -- "$option" /tmp/page || { echo "$option is in gitopsd $verb --help and not in its page"; exit 1; }
    done
done
holds 'No repository is configured' journalctl --list-catalog
systemd-analyze verify gitopsd.service gitopsd-kubeconfig.path 2>/tmp/verify || true
not grep -i gitopsd /tmp/verify
I
    completions
    # A person who looks is told what to do, by every way of looking.
    holds 'not configured: run gitopsd init' inside gitopsd status
    not inside gitopsd status 2>/dev/null
    local rating
    rating=$(inside systemd-analyze security gitopsd --no-pager | sed -n 's/.*exposure level for gitopsd.service: \([0-9.]*\).*/\1/p')
    awk -v rating="$rating" 'BEGIN { exit !(rating != "" && rating <= 2.0) }' || die "rated $rating"
    say "    systemd-analyze security rates the unit $rating"
}

# completions: each shell's lies where that shell looks, and offers every verb. bash is asked; zsh and
# fish read theirs where this host has them, and are not needed for the rest.
completions() {
    local verb verbs bash=$root/usr/share/bash-completion/completions/gitopsd
    local zsh=$root/usr/share/zsh/vendor-completions/_gitopsd fish=$root/usr/share/fish/vendor_completions.d/gitopsd.fish
    verbs=$(inside gitopsd --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p')
    [ "$(wc -w <<<"$verbs")" -gt 12 ]
    bash -n "$bash"
    bash -c '. "$1"; COMP_WORDS=(gitopsd ""); COMP_CWORD=1
        "$(complete -p gitopsd | sed "s/.*-F \([^ ]*\) .*/\1/")" gitopsd "" gitopsd; printf "%s\n" "${COMPREPLY[@]}"' - "$bash" >"$work/offered"
    [ "$(head -n 1 "$zsh")" = '#compdef gitopsd' ]
    for verb in $verbs; do
        grep -qx "$verb" "$work/offered" || die "bash does not offer $verb"
        grep -q "^'$verb:" "$zsh" || die "zsh does not offer $verb"
        grep -qE "^complete -c gitopsd .*-a \"$verb\"" "$fish" || die "fish does not offer $verb"
    done
    ! command -v zsh >/dev/null || zsh -n "$zsh"
    ! command -v fish >/dev/null || fish --no-execute "$fish"
}

# The example repositories, on a Git server of this machine.
git_server() {
    local repos=$work/repos name
    rm -rf "$repos"
    mkdir -p "$repos" "$root/srv/git/infra" "$root/srv/git/games"
    # The repositories belong to the machine's user git, and are pushed to from outside.
    export GIT_CONFIG_GLOBAL=$work/gitconfig
    git config --global safe.directory '*'
    inside useradd --create-home --shell /usr/bin/git-shell git
    for name in flux-config games/blaster; do
        mkdir -p "$(dirname "$repos/$name")"
        cp -a "tests/examples/$name" "$repos/$name"
    done
    # There is no image registry in here.
    rm "$repos"/flux-config/clusters/my-cluster/blaster{,-prod}/20-blaster-image.yaml
    # Every source over ssh, with the deploy key of this host.
    grep -rlF 'http://git.test.invalid' "$repos" | while read -r name; do
        sed -i -e '/^  secretRef:$/,+1d' \
            -e 's#^  url: http://git.test.invalid/\(.*\)#&\n  secretRef:\n    name: flux-system#' \
            -e 's#http://git.test.invalid/#ssh://git@127.0.0.1/srv/git/#' "$name"
    done
    publish flux-config infra/flux-config main
    publish games/blaster games/blaster main develop
    inside chown -R git:git /srv/git
    inside systemctl start ssh
}

# publish REPO PATH BRANCH…: makes the bare repository.
publish() {
    local tree=$work/repos/$1 path=$2
    shift 2
    git -C "$tree" -c init.defaultBranch=main init -q
    commit "$tree" 'first'
    git init -q --bare --initial-branch=main "$root/srv/git/$path.git"
    local branch
    for branch; do
        git -C "$tree" push -q "$root/srv/git/$path.git" "HEAD:refs/heads/$branch"
    done
}

# commit TREE SUBJECT
commit() {
    git -C "$1" add -A
    git -C "$1" -c user.name=Someone -c user.email=someone@example.org commit -q -m "$2"
}

# push SUBJECT: commits what changed in flux-config, and pushes it.
push() {
    commit "$work/repos/flux-config" "$1"
    git -C "$work/repos/flux-config" push -q "$root/srv/git/infra/flux-config.git" HEAD:refs/heads/main
    inside chown -R git:git /srv/git/infra
}

# ready: every Kustomization is.
ready() {
    inside gitopsd status >/dev/null
}

# setup WORDS…: gitopsd init as a person at a script would run it.
setup() {
    inside gitopsd init --repo git@127.0.0.1:/srv/git/infra/flux-config.git --path clusters/my-cluster \
        --interval 10s --generate-identity --host-key-fingerprint "$fingerprint" \
        --age-key /root/age.key --no-recovery --yes "$@" 2>&1
}

init_brings_the_box_up_and_everything_becomes_healthy() {
    inside systemctl enable -q --now k3s
    git_server
    install -m 0400 tests/examples/age.key "$root/root/age.key"
    fingerprint=$(inside ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d ' ' -f 2)
    # Only to say what would be done.
    local before
    before=$(inside find /etc/gitopsd /etc/systemd -type f -exec sha256sum {} + | sort)
    setup --dry-run >"$work/init" || die "init --dry-run: $(cat "$work/init")"
    [ "$(inside find /etc/gitopsd /etc/systemd -type f -exec sha256sum {} + | sort)" = "$before" ]
    # The deploy key is made, shown, and not yet known to the Git server.
    if setup >"$work/init"; then die 'init succeeds without the right to read'; fi
    grep -o 'ssh-ed25519 [A-Za-z0-9+/=]*' "$work/init" | head -n 1 >"$work/deploy.pub"
    [ -s "$work/deploy.pub" ]
    not inside test -e /etc/gitopsd/config.d/50-init.yaml
    holds 'not configured' inside systemctl status gitopsd
    install -m 0600 "$work/deploy.pub" "$root/root/deploy.pub"
    inside install -D -o git -g git -m 0600 /root/deploy.pub /home/git/.ssh/authorized_keys
    inside chown git:git /home/git/.ssh
    setup >"$work/init" || die "init: $(cat "$work/init")"
    eventually 120 'all is ready' ready
    holds 'Kustomizations ready' inside systemctl status gitopsd
    # The sealed Secret was opened, in the sandbox of the unit, by the renderer that k3s brings.
    holds 'DATABASE_PASSWORD' inside kubectl -n blaster get secret blaster-env-dev -o yaml
    [ "$(inside systemctl show -P NRestarts gitopsd)" = 0 ]
    # Landlock confines the renderer where the kernel has it, under the unit's own filter too.
    not holds 'no Landlock' inside journalctl -q -u gitopsd 2>/dev/null
    # Once more: nothing is done twice.
    before=$(inside find /etc/gitopsd -type f -exec sha256sum {} +)
    setup >"$work/init" || die "init again: $(cat "$work/init")"
    [ "$(inside find /etc/gitopsd -type f -exec sha256sum {} + | sort)" = "$(sort <<<"$before")" ]
    inside gitopsd check
    holds 'age1' inside gitopsd key show
}

members_of_the_group_look_and_only_root_acts() {
    script <<'I'
useradd --create-home --groups gitopsd watcher
useradd --create-home stranger
as() { setpriv --reuid="$1" --regid="$1" --init-groups "${@:2}"; }
as watcher gitopsd status >/dev/null
as watcher gitopsd history >/dev/null
not as watcher gitopsd reconcile 2>/tmp/denied
grep -q 'use sudo' /tmp/denied
not as stranger gitopsd status 2>/tmp/denied
grep -q 'join group gitopsd or use sudo' /tmp/denied
not as watcher cat /etc/gitopsd/credentials/age-key 2>/dev/null
not as watcher ls /var/lib/gitopsd 2>/dev/null
I
}
