# What the scripts in tests/ share; to be sourced, from the top of the tree.
#
# It finds Rust, and settles where cargo builds: CARGO_TARGET_DIR, by default outside the tree.

started=$SECONDS

# stage NAME COMMAND…: a heading with the time so far, then the command without a terminal's input.
stage() {
    printf '\n== %s  (%d min %02d s)\n' "$1" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
    shift
    "$@" </dev/null
}

for tool in cargo rustc; do
    command -v $tool >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    command -v $tool >/dev/null || {
        echo "$tool is missing: install Rust 1.90 or newer, https://rustup.rs" >&2
        exit 1
    }
done

cache=${GITOPSD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/gitopsd-test}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
# The paths of this machine stay out of the binary, and two machines make the same one.
remap=--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/crates
case " ${RUSTFLAGS:-} " in
*" $remap "*) ;; # sourced by a script that was called by one that did
*) export RUSTFLAGS="${RUSTFLAGS:+$RUSTFLAGS }$remap" ;;
esac
# So do the paths of the tree, see there.
PATH=$PWD/debian/bin:$PATH
export RUSTC_WORKSPACE_WRAPPER=gitopsd-rustc
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

# The control plane and its friends; GITOPSD_TEST_BIN says where they are.
build_tools() {
    GITOPSD_TEST_BIN=${GITOPSD_TEST_BIN:-$(tests/tools.sh)}
    export GITOPSD_TEST_BIN
    "$GITOPSD_TEST_BIN/testcluster" --version
}

# run_example NAME: builds gitopsd and the example, then becomes the example.
run_example() {
    stage 'test bed' build_tools
    stage "gitopsd and the $1 (about 20 minutes without a word the first time)" \
        cargo build --release --locked --bin gitopsd --example "$1"
    export GITOPSD_PROGRAM=$CARGO_TARGET_DIR/release/gitopsd
    exec "$CARGO_TARGET_DIR/release/examples/$1" </dev/null
}
