//! What `aic compile` writes, as a C program uses it, on x86-64 under valgrind and on AArch64 under qemu: two real models linked
//! into one program that share an arena, one of them with its weights outside, compiled as C99 and as C++; and an encoder at
//! every level of optimization.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use aic::compare::{Tolerance, compare};
use aic::inputs::Arrays;
use aic::{Config, EmitKind, Model, OptLevel, TargetSpec, digits};
use aic_ir::types::Tensor;
use common::{asset, reference};

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

/// Where programs run.
struct Platform {
    triple: &'static str,
    /// A plain processor, because valgrind does not know every instruction of the newest.
    cpu: &'static str,
    /// C compiler with the package that has it.
    cc: (&'static str, &'static str),
    cc_flags: &'static [&'static str],
    /// What runs programs, with its package.
    runner: (&'static str, &'static str),
}

const PLATFORMS: [Platform; 2] = [
    Platform {
        triple: "x86_64-unknown-linux-gnu",
        cpu: "x86-64-v3",
        cc: ("cc", "gcc"),
        cc_flags: &[],
        runner: ("valgrind -q --error-exitcode=9 --leak-check=full", "valgrind"),
    },
    Platform {
        triple: "aarch64-unknown-linux-gnu",
        cpu: "aarch64",
        cc: ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
        cc_flags: &["-static"],
        runner: ("qemu-aarch64-static", "qemu-user-static"),
    },
];

const STRICT: [&str; 3] = ["-Wall", "-Wextra", "-Werror"];

impl Platform {
    /// Compiles `main.c` as C99 and links it to `main`.
    fn link(&self, dir: &Path, parts: &[&str]) {
        let (cc, package) = self.cc;
        let args =
            [&[cc, "-std=c99", "-pedantic"], self.cc_flags, &STRICT, &["main.c"], parts, &["-o", "main"]].concat();
        tool(dir, package, &args);
    }

    /// Runs `main` with arguments and redirections; gives its standard output.
    fn run(&self, dir: &Path, rest: &str) -> Vec<u8> {
        let (runner, package) = self.runner;
        tool(dir, package, &["sh", "-c", &format!("{runner} ./main {rest}")]).stdout
    }
}

#[test]
fn two_models_in_one_program() {
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

    for platform in &PLATFORMS {
        let folder = tempfile::tempdir().expect("folder");
        let dir = folder.path();
        let target = ["--target", platform.triple, "--target-cpu", platform.cpu];
        let compile = |args: &[&str]| aic(dir, &[&["compile", DIGITS][..], &target, args].concat());
        compile(&["--shape", "batch=1", "--emit", "obj,header"]);
        let emit = "staticlib=twin.a,header=twin.h,weights=twin.weights";
        compile(&["--shape", "batch=2", "--name", "twin", "--weights", "external", "--emit", emit]);
        fs::write(dir.join("main.c"), PROGRAM).expect("writes");
        fs::write(dir.join("images"), &input).expect("writes");

        let parts = ["digits.o", "twin.a"];
        platform.link(dir, &parts);
        let output = platform.run(dir, "twin.weights < images");
        assert_eq!(String::from_utf8_lossy(&output), expected, "{}", platform.triple);
        if platform.cc.0 == "cc" {
            fs::copy(dir.join("main.c"), dir.join("main.cc")).expect("copies");
            let cxx = [&["c++"][..], &STRICT, &["main.cc"], &parts, &["-o", "main-cc"]].concat();
            tool(dir, "g++", &cxx);
            let output = tool(dir, "g++", &["sh", "-c", "./main-cc twin.weights < images"]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
        }
    }
}

/// Reads inputs from stdin, runs every model of `MODELS` on them, and writes the first output of each.
const LEVELS: &str = r#"
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#define RUN(name, NAME) do { \
    void *in[NAME##_NUM_INPUTS], *out[NAME##_NUM_OUTPUTS], *arena; \
    size_t i; \
    rewind(stdin); \
    for (i = 0; i < NAME##_NUM_INPUTS; i++) { \
        if (posix_memalign(&in[i], 64, name##_inputs[i].bytes)) return 2; \
        if (fread(in[i], 1, name##_inputs[i].bytes, stdin) != name##_inputs[i].bytes) return 3; \
    } \
    for (i = 0; i < NAME##_NUM_OUTPUTS; i++) if (posix_memalign(&out[i], 64, name##_outputs[i].bytes)) return 2; \
    if (posix_memalign(&arena, 64, NAME##_ARENA_BYTES)) return 2; \
    if (name##_run((const void *const *)in, out, arena) != AIC_OK) return 4; \
    if (fwrite(out[0], 1, name##_outputs[0].bytes, stdout) != name##_outputs[0].bytes) return 5; \
    for (i = 0; i < NAME##_NUM_INPUTS; i++) free(in[i]); \
    for (i = 0; i < NAME##_NUM_OUTPUTS; i++) free(out[i]); \
    free(arena); \
} while (0)
"#;

#[test]
fn every_level_of_optimization_of_an_encoder() {
    let reference = reference("bert_tiny_s16");
    let model = Model::open(asset("bert_tiny")).expect("opens");
    let levels = [OptLevel::None, OptLevel::Tiled, OptLevel::Speed, OptLevel::Size];
    for platform in &PLATFORMS {
        let folder = tempfile::tempdir().expect("folder");
        let dir = folder.path();
        let (mut includes, mut calls, mut objects) = (String::new(), String::new(), Vec::new());
        let mut expected: Vec<(String, Tensor)> = Vec::new();
        for (i, level) in levels.into_iter().enumerate() {
            let target = TargetSpec::new().triple(platform.triple).cpu(platform.cpu);
            let mut config =
                Config::new().target(target).opt_level(level).name(&format!("o{i}")).expect("an identifier");
            let mut arrays = Arrays::new();
            for (name, tensor) in &reference.inputs {
                config = config.input_shape(name, tensor.ty().shape()).expect("one shape");
                arrays.add(name.clone(), tensor.clone()).expect("one array");
            }
            let artifacts = config.session().expect("a target").compile(&model).expect("compiles");
            let inputs = arrays.in_order(&artifacts.program, None).expect("all inputs");
            let bytes: Vec<u8> = inputs.iter().flat_map(|t| t.bytes().to_vec()).collect();
            fs::write(dir.join("inputs"), bytes).expect("writes");
            fs::write(dir.join(format!("o{i}.o")), artifacts.emit(EmitKind::Obj).expect("emits")).expect("writes");
            fs::write(dir.join(format!("o{i}.h")), artifacts.emit(EmitKind::Header).expect("emits")).expect("writes");
            let name = artifacts.output_names().swap_remove(0);
            let of_name = reference.outputs.iter().find(|(n, _)| *n == name).expect("a reference for the output");
            expected.push(of_name.clone());
            includes += &format!("#include \"o{i}.h\"\n");
            calls += &format!("    RUN(o{i}, O{i});\n");
            objects.push(format!("o{i}.o"));
        }
        fs::write(dir.join("aic.h"), aic_cpu::artifact::header::common()).expect("writes");
        let main = format!("{LEVELS}{includes}int main(void) {{\n{calls}    return 0;\n}}\n");
        fs::write(dir.join("main.c"), main).expect("writes");
        platform.link(dir, &objects.iter().map(String::as_str).collect::<Vec<_>>());
        let mut output = bytes::Bytes::from(platform.run(dir, "< inputs"));
        for (i, (name, expected)) in expected.iter().enumerate() {
            let got = Tensor::new(expected.ty().clone(), output.split_to(expected.bytes().len())).expect("fits");
            let tolerance = Tolerance { atol: 2e-5, rtol: 1e-4, min_cosine: Some(0.999_999) };
            let difference = compare(name, &got, expected, &tolerance).expect("same shape");
            assert!(difference.passed, "{}, level {i}: {difference:?}", platform.triple);
        }
    }
}
