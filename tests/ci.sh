#!/usr/bin/env bash
# Checks the example's .gitlab-ci.yml against the schema that GitLab publishes for its editor, as the
# PyPI package check-jsonschema carries it. The package is kept in the cache, outside the tree.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/lib.sh

version=0.39.0
home=$cache/check-jsonschema-$version
if [ ! -x "$home/bin/check-jsonschema" ]; then
    tests/packages.sh python3:python3 /usr/share/doc/python3-venv:python3-venv
    rm -rf "$home.part"
    # Debian's own: another Python may lack venv, and moves with its owner.
    /usr/bin/python3 -m venv "$home"
    "$home/bin/pip" --quiet --disable-pip-version-check install "check-jsonschema==$version"
fi
"$home/bin/check-jsonschema" --builtin-schema vendor.gitlab-ci tests/examples/games/blaster/.gitlab-ci.yml
