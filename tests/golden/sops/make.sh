#!/bin/sh
# Makes every case anew: sealed with sops, opened again with sops -d as the expected text.
# Usage: SOPS=/path/to/sops ./make.sh   (needs age-keygen and ssh-keygen; keys are made once)
set -eu
cd "$(dirname "$0")"
SOPS=${SOPS:-sops}
export HOME=/nonexistent XDG_CONFIG_HOME=/nonexistent

[ -f keys/test.agekey ] || {
    mkdir -p keys
    age-keygen -o keys/test.agekey
    age-keygen -o keys/second.agekey
    age-keygen -o keys/stranger.agekey
    ssh-keygen -q -t ed25519 -N '' -C test -f keys/id_ed25519
    ssh-keygen -q -t rsa -b 2048 -N '' -C test -f keys/id_rsa
}
TEST=$(age-keygen -y keys/test.agekey)
SECOND=$(age-keygen -y keys/second.agekey)
ED25519=$(cut -d' ' -f1,2 keys/id_ed25519.pub)
RSA=$(cut -d' ' -f1,2 keys/id_rsa.pub)

# seal CASE EXT TYPE [sops options]: CASE/plain.EXT becomes CASE/sealed.EXT and CASE/opened.EXT
seal() {
    case=$1 ext=$2 type=$3
    shift 3
    $SOPS encrypt --input-type "$type" --output-type "$type" "$@" "$case/plain.$ext" > "$case/sealed.$ext"
    case "$case" in
        ssh-ed25519) export SOPS_AGE_SSH_PRIVATE_KEY_FILE=keys/id_ed25519 ;;
        ssh-rsa) export SOPS_AGE_SSH_PRIVATE_KEY_FILE=keys/id_rsa ;;
        *) export SOPS_AGE_KEY_FILE=keys/test.agekey ;;
    esac
    $SOPS decrypt --input-type "$type" --output-type "$type" "$case/sealed.$ext" > "$case/opened.$ext"
    unset SOPS_AGE_KEY_FILE SOPS_AGE_SSH_PRIVATE_KEY_FILE
}

seal secret yaml yaml --age "$TEST" --encrypted-regex '^(data|stringData)$'
seal types yaml yaml --age "$TEST"
seal documents yaml yaml --age "$TEST" --encrypted-regex '^(data|stringData)$'
seal encrypted-suffix yaml yaml --age "$TEST" --encrypted-suffix _secret
seal unencrypted-regex yaml yaml --age "$TEST" --unencrypted-regex '^(apiVersion|kind|metadata)$'
seal object json json --age "$TEST"
seal dotenv env dotenv --age "$TEST"
seal ini ini ini --age "$TEST"
seal binary bin binary --age "$TEST"
seal ssh-ed25519 yaml yaml --age "$ED25519"
seal ssh-rsa yaml yaml --age "$RSA"
seal two-recipients yaml yaml --age "$SECOND,$TEST"

# These need a configuration file: `configured CASE KEYS`, with the rule on standard input.
configured() {
    { echo "creation_rules:"; cat; } > config.tmp
    $SOPS --config config.tmp encrypt --input-type yaml --output-type yaml \
        --filename-override "$1.yaml" "$1/plain.yaml" > "$1/sealed.yaml"
    SOPS_AGE_KEY_FILE=$2 $SOPS decrypt "$1/sealed.yaml" > "$1/opened.yaml"
    rm config.tmp
}

configured mac-only-encrypted keys/test.agekey <<END
  - age: $TEST
    encrypted_regex: ^(data|stringData)$
    mac_only_encrypted: true
END

configured comment-regex keys/test.agekey <<END
  - age: $TEST
    encrypted_comment_regex: sops:seal
END

# Any two of three groups are enough.
cat keys/test.agekey keys/second.agekey > keys/both.tmp
configured groups keys/both.tmp <<END
  - shamir_threshold: 2
    key_groups:
      - age: [$TEST]
      - age: [$SECOND]
      - age: [$(age-keygen -y keys/stranger.agekey)]
END
rm keys/both.tmp
