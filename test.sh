#!/usr/bin/env bash
# Installs what the tests need and runs them all: format, lints, documentation, tests. Used by people and by .ci/run.
set -euo pipefail
cd "$(dirname "$0")"

# Tools that tests call: C and C++ compilers, valgrind, binutils.
missing=()
for pair in cc:gcc c++:g++ valgrind:valgrind nm:binutils; do
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
if command -v cargo-deny >/dev/null; then
    cargo deny check
fi

# The command itself, in release: the embedded model, and one short measurement of it.
cargo build --release --locked
./target/release/aic demo
./target/release/aic bench tests/models/digits.onnx --shape batch=1 --random 1 --seconds 0.1 --per-kernel
