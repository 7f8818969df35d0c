#!/usr/bin/env bash
# Everything that must hold before a change lands, in the order in which it fails fastest.
#
#   scripts/check.sh            all of it
#   scripts/check.sh NAME...    only these: fmt purity clippy docs test deny devnet welfare root bitcoind guest
#   scripts/check.sh --bitcoind the same as `bitcoind`
#
# `guest` runs only when it is named: the tests of containers on another kernel take many minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

# What the main job is run with. `CAPEX_PROFILE=dev` takes the program that the tests have built
# already, which saves a second build of everything it is made of.
build_capex() {
    if [ "${CAPEX_PROFILE:-release}" = dev ]; then
        cargo test --locked --no-run
        capex=target/debug/capex
    else
        cargo build --locked --release
        capex=target/release/capex
    fi
}

# SECONDS counts from the start of the shell.
say() { printf '\n== %s (after %d s)\n' "$*" "$SECONDS"; }

check_fmt() { cargo fmt --all --check; }

# The core must build from its own dependencies alone, which `tests/tidy.rs` lists.
check_purity() { cargo check --locked -p capex-core; }

check_clippy() { cargo clippy --locked --workspace --all-targets -- -D warnings; }

check_docs() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps --quiet; }

check_test() { cargo test --locked; }

# Licences and duplicate versions. Advisories need a database from outside; they are checked
# where it can be reached.
check_deny() {
    if ! command -v cargo-deny >/dev/null; then
        if [ -n "${CI:-}" ]; then
            echo 'cargo-deny is missing: .ci/run installs it' >&2
            return 1
        fi
        echo 'skipped: cargo-deny is not installed (cargo install cargo-deny)'
        return 0
    fi
    cargo deny --locked check licenses bans sources
}

# The main job, as a user runs it, and its document checked field by field.
check_devnet() {
    local capex out
    out=$(mktemp -d)
    build_capex
    "$capex" devnet --containers --json --seed 7 \
        >"$out/devnet.json" 2>"$out/story.txt" || {
        cat "$out/story.txt" "$out/devnet.json" >&2
        return 1
    }
    cat "$out/story.txt"
    python3 scripts/check_devnet.py "$out/devnet.json" devchain if-can
    rm -rf "$out"
}

# The generated books again: no version of the matcher may fall behind its ratios to the optimum.
check_welfare() {
    local capex
    build_capex
    CAPEX=$capex scripts/bench/welfare/run --gate
}

# Containers, on this machine's kernel: their limits, and two hundred leases, counted before and
# after.
check_root() {
    if [ "$(id -u)" -ne 0 ]; then
        if [ -n "${CI:-}" ]; then
            echo 'containers need the superuser' >&2
            return 1
        fi
        echo 'skipped: containers need the superuser'
        return 0
    fi
    cargo test --locked --test containers
    scripts/many_leases 200
}

# The same tests on Debian's kernel, with control groups of version 2.
check_guest() { scripts/guest; }

# Everything that touches Bitcoin, on a real Bitcoin Core: the development chain judges like it,
# settlements end as they should, and the main job runs on it.
check_bitcoind() {
    local capex out path
    if ! path=$(scripts/bitcoind); then
        if [ -n "${CI:-}" ]; then
            echo 'there is no Bitcoin Core: .ci/run installs what a build needs' >&2
            return 1
        fi
        echo 'skipped: bitcoind (see above)'
        return 0
    fi
    export BITCOIND=$path CAPEX_NEEDS_BITCOIND=1
    echo "with $path"
    cargo test --locked --test devchain differential -- --nocapture
    # Four worlds beside each other are what two cores carry in time.
    cargo test --locked --test bitcoind -- --test-threads 4
    out=$(mktemp -d)
    build_capex
    "$capex" devnet --chain bitcoind --json --seed 7 \
        >"$out/devnet.json" 2>"$out/story.txt" || {
        cat "$out/story.txt" "$out/devnet.json" >&2
        return 1
    }
    python3 scripts/check_devnet.py "$out/devnet.json" bitcoind
    rm -rf "$out"
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(fmt purity clippy docs test deny devnet welfare root bitcoind)
for step in "${steps[@]#--}"; do
    say "$step"
    "check_$step"
done
say 'all checks passed'
