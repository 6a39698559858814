//! What `aic compile` writes, as a C program uses it: two real models linked into one program that share an arena, one of them
//! with its weights outside, compiled as C99 and as C++, run under valgrind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use aic::{Config, TargetSpec, digits};

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits.onnx");

/// Reads 64 floats for each image from stdin, prints the digit that each model sees.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include "digits.h"
#include "twin.h"

#define LARGER(a, b) ((a) > (b) ? (a) : (b))
#define ARENA_BYTES LARGER(DIGITS_ARENA_BYTES, TWIN_ARENA_BYTES)

static int largest(const float *x) {
    int i, best = 0;
    for (i = 1; i < 10; i++) if (x[i] > x[best]) best = i;
    return best;
}

int main(int argc, char **argv) {
    static union { unsigned char bytes[ARENA_BYTES + 64]; double align; } memory;
    void *arena = memory.bytes + (64 - (size_t)memory.bytes % 64) % 64;
    float images[2][64], one[10], two[2][10];
    unsigned char *block, *weights;
    const void *inputs[1];
    void *outputs[1];
    aic_io io = AIC_IO_INIT;
    FILE *file;
    if (argc != 2 || !(file = fopen(argv[1], "rb"))) return 2;
    block = (unsigned char *)malloc(TWIN_WEIGHTS_BYTES + 64);
    if (!block) return 3;
    weights = block + (64 - (size_t)block % 64) % 64;
    if (fread(weights, 1, TWIN_WEIGHTS_BYTES, file) != TWIN_WEIGHTS_BYTES) return 4;
    fclose(file);
    while (fread(images, sizeof images, 1, stdin) == 1) {
        int i;
        for (i = 0; i < 2; i++) {
            inputs[DIGITS_INPUT_IMAGE] = images[i];
            outputs[DIGITS_OUTPUT_LOGITS] = one;
            if (digits_run(inputs, outputs, arena) != AIC_OK) return 5;
            printf("%d ", largest(one));
        }
        inputs[TWIN_INPUT_IMAGE] = images;
        outputs[TWIN_OUTPUT_LOGITS] = two;
        io.inputs = inputs;
        io.outputs = outputs;
        io.arena = arena;
        io.weights = weights;
        if (twin_run_ex(&io) != AIC_OK) return 6;
        printf("%d %d\n", largest(two[0]), largest(two[1]));
    }
    free(block);
    return 0;
}
"#;

/// Runs a tool that `test.sh` installs.
fn tool(folder: &Path, package: &str, args: &[&str]) -> Output {
    let output = Command::new(args[0]).args(&args[1..]).current_dir(folder).output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}; to install it: apt-get install {package}", args[0]));
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn aic(folder: &Path, args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_aic")).args(args).current_dir(folder).output().expect("aic starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn two_models_in_one_program() {
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path();
    // A plain processor, because valgrind does not know every instruction of the newest.
    let target = ["--target", "x86_64-unknown-linux-gnu", "--target-cpu", "x86-64-v3"];
    let compile = |args: &[&str]| aic(dir, &[&["compile", DIGITS][..], &target, args].concat());
    compile(&["--shape", "batch=1", "--emit", "obj,header"]);
    let emit = "staticlib=twin.a,header=twin.h,weights=twin.weights";
    compile(&["--shape", "batch=2", "--name", "twin", "--weights", "external", "--emit", emit]);
    fs::write(dir.join("main.c"), PROGRAM).expect("writes");
    fs::copy(dir.join("main.c"), dir.join("main.cc")).expect("copies");

    let strict = ["-Wall", "-Wextra", "-Werror"];
    let parts = ["digits.o", "twin.a"];
    tool(dir, "gcc", &[&["cc", "-std=c99", "-pedantic"][..], &strict, &["main.c"], &parts, &["-o", "main"]].concat());
    let cc = [&["c++"][..], &strict, &["main.cc"], &parts, &["-o", "main-cc"]];
    tool(dir, "g++", &cc.concat());

    // What the library gives for the same images.
    let images = digits::held_out().expect("readable");
    let images = &images[..6];
    let session = Config::new().target(TargetSpec::native()).shape("batch=1").expect("a shape").session();
    let mut runner = session.expect("a target").compile(&digits::model()).expect("compiles").runner().expect("maps");
    let mut expected = String::new();
    for pair in images.chunks(2) {
        let seen: Vec<String> = pair
            .iter()
            .map(|(image, _)| {
                let logits = runner.run(std::slice::from_ref(image)).expect("runs").swap_remove(0);
                digits::largest(&logits).expect("ten of them").to_string()
            })
            .collect();
        expected += &format!("{0} {0}\n", seen.join(" "));
    }

    let input: Vec<u8> = images.iter().flat_map(|(image, _)| image.bytes().to_vec()).collect();
    fs::write(dir.join("images"), input).expect("writes");
    let valgrind = "valgrind -q --error-exitcode=9 --leak-check=full";
    for run in [format!("{valgrind} ./main twin.weights < images"), "./main-cc twin.weights < images".to_owned()] {
        let output = tool(dir, "valgrind", &["sh", "-c", &run]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{run}");
    }
}
