#!/usr/bin/env bash
# Judges what gitopsd asks of Cloudflare by the types of Cloudflare's own client.
#
# The stand-in records every body that tests send to it, of every kind of call that the daemon and
# `gitopsd check --online` make; `types.py` reads the request types of the client that is generated
# from the published description of the API, and refuses what they do not have. The client comes from
# the package index, into a directory that goes again.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/lib.sh

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
stage 'bodies' env GITOPSD_TEST_BODIES="$place/bodies" \
  cargo test --release --locked --test it -- edge::client edge::made edge::ingresses
stage "Cloudflare's client" python3 -m pip install --quiet --target "$place/client" cloudflare==5.9.0
PYTHONPATH="$place/client" python3 tests/cloudflare/types.py "$place/bodies"
