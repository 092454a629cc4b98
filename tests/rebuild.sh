#!/usr/bin/env bash
# rebuild.sh: two builds give identical packages, debug symbols included. The first is the one that
# the tests use; the second is made from a copy of the tree in another directory, with a target
# directory of its own, under another umask, locale and time zone. Part of `make test-full`: it
# compiles everything once more.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
# Set by hand, it makes other machine code than the profile says.
unset CARGO_INCREMENTAL

work=$(mktemp -d /var/tmp/gitopsd-rebuild.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/first" "$work/second" "$work/some-where/else"
echo 'the package of the tests'
GITOPSD_DEB_DIR=$work/first debian/build.sh 2>"$work/log" || { tail -n 40 "$work/log" >&2; exit 1; }

echo 'the same from another directory: everything is compiled once more'
git ls-files -z --cached --others --exclude-standard |
    tar -c --null --files-from=- | tar -x -C "$work/some-where/else"
(
    cd "$work/some-where/else"
    umask 077
    CARGO_TARGET_DIR=$work/target GITOPSD_DEB_DIR=$work/second LC_ALL=C TZ=Pacific/Kiritimati \
        debian/build.sh 2>"$work/log"
) || { tail -n 40 "$work/log" >&2; exit 1; }

compared=0
for one in "$work"/first/*.deb; do
    name=${one##*/}
    if ! cmp "$one" "$work/second/$name"; then
        for side in first second; do
            dpkg-deb -R "$work/$side/$name" "$work/$side/tree"
            (cd "$work/$side/tree" && find . -type f -exec sha256sum {} + | sort -k 2) >"$work/$side.sums"
        done
        diff "$work/first.sums" "$work/second.sums" >&2 || true
        echo "FAILED: $name differs from one build to the other" >&2
        exit 1
    fi
    echo "identical: $name"
    compared=$((compared + 1))
done
# The package and its debug symbols.
[ $compared = 2 ]
