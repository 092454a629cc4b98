#!/bin/sh
# Makes the sealed files of the examples anew, with the real sops and the key in age.key:
#   PATH=$(tests/tools.sh):$PATH tests/examples/seal.sh
set -eu
cd "$(dirname "$0")"
. ./secrets.txt

# seal FILE: seals stdin as FILE, under the rules of the .sops.yaml of its repository.
seal() {
    root=${1%%/k8s/*}
    root=${root%%/infrastructure/*}
    sops --config "$root/.sops.yaml" encrypt --filename-override "$1" --input-type yaml \
        --output-type yaml /dev/stdin >"$1.new"
    mv "$1.new" "$1"
}

secret() {
    cat <<YAML
apiVersion: v1
kind: Secret
metadata:
  name: $1
  namespace: $2
type: Opaque
stringData:
YAML
}

{
    secret blaster-env blaster
    echo "  DATABASE_PASSWORD: $BLASTER_DEV_PASSWORD"
    echo "  API_TOKEN: $BLASTER_DEV_API_TOKEN"
} | seal games/blaster/k8s/dev/secret.enc.yaml
{
    secret blaster-env blaster
    echo "  DATABASE_PASSWORD: $BLASTER_PROD_PASSWORD"
    echo "  API_TOKEN: $BLASTER_PROD_API_TOKEN"
} | seal games/blaster/k8s/prod/secret.enc.yaml
{
    secret tunnel-token cloudflared
    echo "  TUNNEL_TOKEN: $CLOUDFLARED_TOKEN"
} | seal flux-config/infrastructure/controllers/cloudflared/token.enc.yaml
