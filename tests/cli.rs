//! The command from outside: exit status, what goes to which stream, files left behind, JSON, determinism, dumps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/digits.onnx");

fn aic(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aic"));
    command.args(args).current_dir(folder).env_remove("AIC_DUMP").env_remove("AIC_DUMP_DIR");
    command.output().expect("aic starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("folder")
}

/// Names of all files, hidden ones too.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).expect("lists").map(|e| text(e.expect("entry").file_name().as_encoded_bytes())).collect();
    names.sort();
    names
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout)))
}

#[test]
fn wrong_use_is_2_and_explained_on_stderr() {
    let dir = folder();
    for args in [
        &["frobnicate"][..],
        &[],
        &["compile", "--emit", "obj"],
        &["compile", DIGITS, "--emit", "potato"],
        &["compile", DIGITS, "--emit", "obj,obj"],
        &["compile", DIGITS, "-o", "out"],
        &["compile", DIGITS, "-o", "-"],
        &["compile", DIGITS, "-o", "-", "--emit", "graph"],
        &["compile", DIGITS, "--emit", "graph=-"],
        &["compile", DIGITS, "--out-dir", "-"],
        &["run", DIGITS, "--shape", "batch=1", "--random", "1", "-o", "-"],
        &["compile", DIGITS, "-o", "out.o", "--emit", "obj,header"],
        &["compile", DIGITS, "--limit", "arena=lots"],
        &["compile", DIGITS, "-O", "7"],
        &["run"],
        &["check", DIGITS],
        &["bench", DIGITS, "--threads", "0"],
        &["targets", "--loud"],
    ] {
        let output = aic(dir.path(), args);
        assert_eq!(code(&output), 2, "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert!(files(dir.path()).is_empty());
}

#[test]
fn wrong_use_is_json_too() {
    let dir = folder();
    for (args, schema) in [
        (&["compile", "--json"][..], "aic.compile.v1"),
        (&["run", "--json"], "aic.run.v1"),
        (&["compile", DIGITS, "--emit", "potato", "--json"], "aic.compile.v1"),
        (&["compile", DIGITS, "-o", "-", "--json"], "aic.compile.v1"),
        (&["bench", "--json", DIGITS, "--threads", "0"], "aic.bench.v1"),
        (&["frobnicate", "--json"], "aic.usage.v1"),
        (&["--json"], "aic.usage.v1"),
    ] {
        let output = aic(dir.path(), args);
        assert_eq!(code(&output), 2, "{args:?}: {}", text(&output.stderr));
        let reply = json(&output);
        assert_eq!((&reply["schema"], &reply["status"]), (&schema.into(), &"usage".into()), "{args:?}");
        let error = reply["error"].as_str().unwrap_or_default();
        assert!(!error.is_empty() && !error.starts_with("error") && !output.stderr.is_empty(), "{args:?}: {error}");
    }
    assert!(files(dir.path()).is_empty());
}

#[test]
fn help_and_version_are_replies() {
    for args in [["--help"], ["--version"]] {
        let output = aic(Path::new("."), &args);
        assert_eq!(code(&output), 0);
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn refused_input_is_1_with_one_error_and_no_file() {
    let dir = folder();
    let digits = fs::read(DIGITS).expect("model");
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("writes");
    write("empty.onnx", b"");
    write("text.onnx", b"this is not a model");
    write("cut.onnx", &digits[..digits.len() / 2]);
    let before = files(dir.path());
    for args in [
        &["compile", "missing.onnx", "-o", "out.o"][..],
        &["compile", "empty.onnx", "-o", "out.o"],
        &["compile", "text.onnx", "-o", "out.o"],
        &["compile", "cut.onnx", "-o", "out.o"],
        &["compile", ".", "-o", "out.o"],
        &["compile", DIGITS, "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=0x1", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "time=1", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--target", "potato", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--target", "riscv64gc-unknown-linux-gnu", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--target", "aarch64_be-unknown-linux-gnu", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--target-cpu", "z80", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--machine", "missing.toml", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "-o", "no/such/folder/out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--name", "7 up", "-o", "out.o"],
        &["compile", DIGITS, "--shape", "batch=1", "--emit", "weights=w"],
        &["compile", DIGITS, "--shape", "batch=1", "--state", "image=logits", "-o", "out.o"],
        &["run", DIGITS, "--shape", "batch=1", "--output", "out.npz"],
        &["run", DIGITS, "--input", "image=missing.npy", "--output", "out.npz"],
        &["run", DIGITS, "--input", "image=text.onnx", "--output", "out.npz"],
        &["run", DIGITS, "--input", "sound=text.onnx", "--output", "out.npz"],
    ] {
        let output = aic(dir.path(), args);
        let stderr = text(&output.stderr);
        assert_eq!(code(&output), 1, "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(stderr.matches("error: ").count(), 1, "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert_eq!(files(dir.path()), before, "{args:?}");
    }
}

#[test]
fn failures_are_json_too() {
    let dir = folder();
    let missing = json(&aic(dir.path(), &["compile", "missing.onnx", "--json"]));
    assert_eq!((&missing["schema"], &missing["status"]), (&"aic.compile.v1".into(), &"refused".into()));
    assert!(missing["error"].as_str().is_some_and(|e| e.contains("missing.onnx")));

    let args = ["compile", DIGITS, "--shape", "batch=1", "--limit", "arena=1", "-o", "out.o", "--json"];
    let output = aic(dir.path(), &args);
    assert_eq!((code(&output), &json(&output)["status"]), (1, &"limit".into()));
    assert!(files(dir.path()).is_empty());
}

#[test]
fn the_same_compile_gives_the_same_bytes() {
    let kinds = "obj,staticlib,cdylib,header,weights,manifest,report,graph,tile,schedule,plan,clif,asm";
    let mut runs: Vec<Vec<(String, Vec<u8>)>> = Vec::new();
    for _ in 0..2 {
        let dir = folder();
        let args = ["compile", DIGITS, "--shape", "batch=1", "--weights", "external", "--emit", kinds, "--json"];
        let output = aic(dir.path(), &args);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        let reply = json(&output);
        assert_eq!(reply["status"], "ok");
        let read = |name: String| (name.clone(), fs::read(dir.path().join(&name)).expect("reads"));
        runs.push(files(dir.path()).into_iter().map(read).collect());
        assert_eq!(reply["outputs"].as_array().map(Vec::len), Some(runs[0].len()));
    }
    assert_eq!(runs[0].len(), 14);
    for (first, second) in runs[0].iter().zip(&runs[1]) {
        assert!(first == second, "{} differs", first.0);
        assert!(!first.1.is_empty(), "{} is empty", first.0);
    }
}

#[test]
fn shared_libraries_need_a_linker_for_their_target() {
    let dir = folder();
    let compile = |triple: &str, args: &[&str]| {
        aic(
            dir.path(),
            &[&["compile", DIGITS, "--shape", "batch=1", "--emit", "cdylib", "--target", triple], args].concat(),
        )
    };
    assert_eq!(code(&compile("aarch64-unknown-linux-gnu", &[])), 0);
    let library = fs::read(dir.path().join("libdigits.so")).expect("reads");
    // `EM_AARCH64`.
    assert_eq!(library[18..20], [183, 0]);
    fs::remove_file(dir.path().join("libdigits.so")).expect("removes");
    for (triple, args, said) in [
        ("aarch64-unknown-linux-gnu", &["--linker", "no-such-linker"][..], "`no-such-linker`"),
        ("aarch64-unknown-linux-gnu", &["--linker", "false"], "linking with `false` failed"),
        ("aarch64-unknown-none", &[], "no shared libraries"),
        ("x86_64-apple-darwin", &[], "ELF only"),
        ("x86_64-pc-windows-msvc", &[], "ELF only"),
    ] {
        let output = compile(triple, args);
        assert_eq!(code(&output), 1, "{triple}");
        assert!(text(&output.stderr).contains(said), "{triple}: {}", text(&output.stderr));
    }
    assert!(files(dir.path()).is_empty());
}

#[test]
fn objects_of_every_platform_can_be_inspected() {
    let dir = folder();
    let targets = json(&aic(dir.path(), &["targets", "--json"]));
    for triple in targets["triples"].as_array().expect("a list").iter().filter_map(Value::as_str) {
        let emit = ["--emit", "obj=m.obj,staticlib=m.lib"];
        let args = [&["compile", DIGITS, "--shape", "batch=1", "--target", triple], &emit[..]].concat();
        let output = aic(dir.path(), &args);
        assert_eq!(code(&output), 0, "{triple}: {}", text(&output.stderr));
        for file in ["m.obj", "m.lib"] {
            let reply = json(&aic(dir.path(), &["inspect", file, "--json"]));
            assert_eq!(reply["undefined"], serde_json::json!([]), "{triple}, {file}");
            assert_eq!(reply["models"][0]["interface"]["name"], "digits", "{triple}, {file}");
        }
    }
}

#[test]
fn a_schedule_that_was_written_can_be_given_back() {
    let dir = folder();
    let compile = |args: &[&str]| {
        let output = aic(dir.path(), &[&["compile", DIGITS, "--shape", "batch=1"][..], args].concat());
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    };
    compile(&["--emit", "obj=a.o,schedule=s.aic"]);
    compile(&["--emit", "obj=b.o", "--schedule", "s.aic"]);
    let read = |name: &str| fs::read(dir.path().join(name)).expect("reads");
    assert!(read("a.o") == read("b.o"));

    let stale = aic(dir.path(), &["compile", DIGITS, "--shape", "batch=2", "--schedule", "s.aic", "-o", "c.o"]);
    assert_eq!(code(&stale), 1);
    assert!(text(&stale.stderr).contains("made for program"), "{}", text(&stale.stderr));
}

#[test]
fn dependencies_name_the_model_and_the_outputs() {
    let dir = folder();
    let args = ["compile", DIGITS, "--shape", "batch=1", "--emit", "obj,dep-info", "--out-dir", "out"];
    assert_eq!(code(&aic(dir.path(), &args)), 0);
    let rule = fs::read_to_string(dir.path().join("out/digits.d")).expect("reads");
    assert!(rule.starts_with(&format!("out/digits.o: {DIGITS}\n")), "{rule}");
}

#[test]
fn running_keeps_names_order_and_types() {
    let dir = folder();
    let output =
        aic(dir.path(), &["run", DIGITS, "--shape", "batch=2", "--random", "1", "--output", "a.npz", "--json"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert_eq!(json(&output)["outputs"][0]["shape"], serde_json::json!([2, 10]));
    let arrays = aic::npz::read(&fs::read(dir.path().join("a.npz")).expect("reads")).expect("an archive");
    let described: Vec<String> = arrays.iter().map(|(name, t)| format!("{name}: {}", t.ty())).collect();
    assert_eq!(described, ["logits: f32[2, 10]"]);

    // The shape of a given array fixes the batch; a folder takes one file for each output.
    let image = aic::digits::held_out().expect("readable").swap_remove(0).0;
    fs::write(dir.path().join("image.npy"), aic::npy::write(&image)).expect("writes");
    let output = aic(dir.path(), &["run", DIGITS, "--input", "image=image.npy", "--output", "arrays"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let array = aic::npy::read(&fs::read(dir.path().join("arrays/logits.npy")).expect("reads")).expect("an array");
    assert_eq!(array.ty().shape(), [1, 10]);

    // Integers are not what the model takes.
    let wrong = aic_ir::types::Tensor::from_i64([1, 1, 8, 8], &[0; 64]).expect("fits");
    fs::write(dir.path().join("wrong.npy"), aic::npy::write(&wrong)).expect("writes");
    let output = aic(dir.path(), &["run", DIGITS, "--input", "image=wrong.npy"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("i64[1, 1, 8, 8]"), "{}", text(&output.stderr));
}

#[test]
fn checks_pass_and_fail() {
    let dir = folder();
    let check = |args: &[&str]| {
        aic(dir.path(), &[&["check", DIGITS, "--shape", "batch=1", "--random", "1", "--json"][..], args].concat())
    };
    let output = check(&["--against", "graph"]);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));

    for impossible in ["1.5", "inf", "NaN", "-1"] {
        let output = check(&["--against", "graph", &format!("--min-cosine={impossible}")]);
        assert_eq!((code(&output), &json(&output)["status"]), (1, &"refused".into()), "{impossible}");
    }

    let wrong = [("logits".to_owned(), aic_ir::types::Tensor::from_f32([1, 10], &[0.0; 10]).expect("fits"))];
    fs::write(dir.path().join("wrong.npz"), aic::npz::write(&wrong).expect("writes")).expect("writes");
    let output = check(&["--expected", "wrong.npz"]);
    let reply = json(&output);
    assert_eq!((code(&output), &reply["status"]), (1, &"mismatch".into()));
    // The code is right and the expectation wrong, so no operator is to blame.
    assert_eq!(reply["diverges_at"], Value::Null);
    assert!(reply["outputs"][0]["max_abs"].as_f64().is_some_and(|e| e > 0.1));
}

#[test]
fn a_measurement_has_the_promised_keys() {
    let args = ["bench", DIGITS, "--shape", "batch=1", "--seconds", "0.01", "--per-kernel", "--json"];
    let output = aic(Path::new("."), &args);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let reply = json(&output);
    assert_eq!(reply["schema"], "aic.bench.v1");
    for key in ["median_ms", "min_ms", "q1_ms", "q3_ms", "runs", "compile_ms", "arena_bytes", "threads"] {
        assert!(reply[key].is_number(), "{key}");
    }
    assert!(reply["kernels"].as_array().is_some_and(|k| k.iter().all(|k| k["predicted_us"].is_number())));
    assert!(reply["cost_model"]["rank_correlation"].is_number());
}

#[test]
fn models_and_artifacts_can_be_inspected() {
    let dir = folder();
    // Without a shape, what can be said is said.
    let open = json(&aic(dir.path(), &["inspect", DIGITS, "--json"]));
    assert_eq!((&open["status"], &open["inputs"][0]["dims"][0]), (&"ok".into(), &"batch".into()));
    let fixed = json(&aic(dir.path(), &["inspect", DIGITS, "--shape", "batch=1", "--json"]));
    assert!(fixed["parameters"].as_u64().is_some_and(|n| n > 3000));

    let compile = ["compile", DIGITS, "--shape", "batch=1", "--emit", "obj,staticlib,cdylib"];
    assert_eq!(code(&aic(dir.path(), &compile)), 0);
    for file in ["digits.o", "libdigits.a", "libdigits.so"] {
        let output = aic(dir.path(), &["inspect", file, "--json"]);
        assert_eq!(code(&output), 0, "{file}: {}", text(&output.stderr));
        let reply = json(&output);
        assert_eq!(reply["undefined"], serde_json::json!([]), "{file}");
        assert_eq!(reply["models"][0]["interface"]["name"], "digits", "{file}");
    }
}

#[test]
fn tables_are_made() {
    let ops = json(&aic(Path::new("."), &["ops", "--json"]));
    assert!(ops["onnx"].as_array().is_some_and(|rules| rules.iter().any(|r| r["op"] == "MatMul")));
    let targets = json(&aic(Path::new("."), &["targets", "--json"]));
    assert!(targets["machines"].as_array().is_some_and(|m| m.iter().any(|m| m["name"] == "x86-64-v3")));
}

#[test]
fn the_embedded_model_reads_digits() {
    for args in [&["demo"][..], &["compile"]] {
        let output = aic(Path::new("."), args);
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("Try next"));
    }
    let reply = json(&aic(Path::new("."), &["demo", "--json"]));
    assert!(reply["accuracy"].as_f64().is_some_and(|a| a > 0.99), "{reply}");
    assert_eq!(reply["outside"], 0);
}

#[test]
fn dumps_go_where_they_are_asked_for() {
    let dir = folder();
    let compile = |dump: &str, to: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aic"));
        command.args(["compile", DIGITS, "--shape", "batch=1", "-o", "out.o"]).current_dir(dir.path());
        command.env("AIC_DUMP", dump).env_remove("AIC_DUMP_DIR");
        if let Some(to) = to {
            command.env("AIC_DUMP_DIR", to);
        }
        let output = command.output().expect("aic starts");
        assert_eq!(code(&output), 0, "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let stderr = compile("lower,conv", None);
    assert!(stderr.contains("; after conv (") && stderr.contains("; after lower ("), "{stderr}");
    assert!(!stderr.contains("; after read"), "{stderr}");
    assert!(compile("all", Some("dumps")).is_empty());
    let names = files(&dir.path().join("dumps"));
    for pass in ["read", "conv", "lower", "schedule", "plan"] {
        assert!(names.iter().any(|n| n.ends_with(&format!("-{pass}.aic"))), "{pass}: {names:?}");
    }
}

#[test]
fn dumps_of_passes_that_do_not_exist_are_refused() {
    let dir = folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aic"));
    command.args(["compile", DIGITS, "--shape", "batch=1", "-o", "out.o"]).current_dir(dir.path());
    let output = command.env("AIC_DUMP", "fold,flod").output().expect("aic starts");
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("`flod`") && files(dir.path()).is_empty(), "{}", text(&output.stderr));
}

#[test]
fn a_reader_that_stops_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aic"));
    let mut child = command.arg("ops").stdout(std::process::Stdio::piped()).spawn().expect("aic starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn no_file_outside_the_models_folder_is_read() {
    // A folder whose config is a link to a file outside.
    let dir = folder();
    let model: PathBuf = dir.path().join("model");
    fs::create_dir(&model).expect("makes");
    fs::write(dir.path().join("secret.json"), b"{\"secret\": 1}").expect("writes");
    std::os::unix::fs::symlink("../secret.json", model.join("config.json")).expect("links");
    let output = aic(dir.path(), &["compile", "model", "-o", "out.o"]);
    assert_eq!(code(&output), 1);
    assert!(text(&output.stderr).contains("symbolic link"), "{}", text(&output.stderr));
}
