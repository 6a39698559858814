#!/usr/bin/env python3
"""Installs what the whole-program tests need and writes their models and reference outputs.

    python3 tests/models/setup.py [--force]

Needs CPython 3.11 or newer with its venv module, PyPI, and about 1.2 GB below `target/test-assets/` (or the folder that
the variable AIC_TEST_ASSETS names): a venv of the packages pinned in requirements.txt, then all that write_assets.py,
write_node_cases.py and write_operator_cases.py write. Each part leaves a stamp with the hash of what it was made from and is skipped while that
has not changed.
This file itself uses nothing but the standard library.
"""

import argparse
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)  # what the pinned onnxruntime needs
VENV_SOURCES = ("setup.py", "requirements.txt")
SCRIPTS = ("write_assets.py", "write_classes.py", "encoder_onnx.py", "encoder_numpy.py")
ASSET_SOURCES = VENV_SOURCES + SCRIPTS + ("digits.onnx", "digits_heldout.npz")
NODE_CASE_SOURCES = VENV_SOURCES + ("write_node_cases.py",)
OPERATOR_CASE_SOURCES = VENV_SOURCES + ("write_operator_cases.py", "operator_recipes.py", "operators.json")
WRITTEN = ("minilm", "bert_tiny", "distilbert_tiny", "classes", "onnx", "reference")


def fail(message):
    sys.exit(f"setup.py: {message}")


def fingerprint(files, python):
    """Changes with the contents of the files, the Python that makes the venv, and the processor it is for."""
    digest = hashlib.sha256(f"{python} {sys.version} {os.uname().machine}\n".encode())
    for name in files:
        data = (HERE / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def run(command, advice):
    print("  $", " ".join(map(str, command)), flush=True)
    code = subprocess.run(command).returncode
    if code != 0:
        fail(f"`{command[0]}` ended with code {code}. {advice}")


def once(stamp, key, force, what, make):
    """Calls `make` unless `stamp` says that it has already been done for this `key`."""
    if not force and stamp.exists() and stamp.read_text() == key:
        print(f"{what}: up to date")
        return
    stamp.unlink(missing_ok=True)
    print(f"{what}:", flush=True)
    started = time.monotonic()
    make()
    stamp.write_text(key)
    print(f"{what}: done in {time.monotonic() - started:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--force", action="store_true", help="install and write everything again")
    force = parser.parse_args().force
    if sys.version_info < OLDEST_PYTHON:
        fail(f"needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer, this is {sys.version.split()[0]}")

    default = HERE.parent.parent / "target" / "test-assets"
    out = pathlib.Path(os.environ.get("AIC_TEST_ASSETS", default)).absolute()
    out.mkdir(parents=True, exist_ok=True)
    venv = out / "venv"
    python = venv / "bin" / "python"

    def install():
        shutil.rmtree(venv, ignore_errors=True)
        run([sys.executable, "-m", "venv", venv], "On Debian and Ubuntu: apt-get install python3-venv")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        pip += ["--only-binary", ":all:", "--require-hashes", "--requirement", HERE / "requirements.txt"]
        run(pip, "PyPI must be within reach, and have wheels for this Python and processor.")

    def write():
        for name in WRITTEN:
            shutil.rmtree(out / name, ignore_errors=True)
        run([python, HERE / "write_assets.py", out], "The lines above say which file failed.")

    def write_node_cases():
        run([python, HERE / "write_node_cases.py", out], "The lines above say which case failed.")

    def write_operator_cases():
        run([python, HERE / "write_operator_cases.py", out], "The lines above say which case failed.")

    with open(out / ".lock", "w") as lock:  # several test programs may start this at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        executable = os.path.realpath(sys.executable)
        once(out / "venv.stamp", fingerprint(VENV_SOURCES, executable), force, f"packages in {venv}", install)
        once(out / "assets.stamp", fingerprint(ASSET_SOURCES, executable), force, f"models and references in {out}", write)
        cases = fingerprint(NODE_CASE_SOURCES, executable)
        once(out / "node-cases.stamp", cases, force, f"ONNX node tests in {out}", write_node_cases)
        cases = fingerprint(OPERATOR_CASE_SOURCES, executable)
        once(out / "operator-cases.stamp", cases, force, f"ONNX operators in {out}", write_operator_cases)


if __name__ == "__main__":
    main()
