//! Hostile files: whatever the bytes are, a compile ends with artifacts or one error, never with a panic, and fast.
//!
//! A short run of what a fuzzer does, with fixed seeds: files cut, bytes overwritten, runs of bytes copied elsewhere.

use std::fs;
use std::path::Path;

use aic::{Config, Model, TargetSpec};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

fn mutate(original: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    if bytes.is_empty() {
        return bytes;
    }
    match random.below(8) {
        0 => bytes.truncate(random.below(original.len())),
        1 => {
            let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
            let length = random.below(64).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
        _ => {
            // The structure is at the start and the end, the weights are between.
            let (near, length) = (random.below(2) == 0, bytes.len());
            for _ in 0..[1, 1, 4, 64][random.below(4)] {
                let at =
                    if near { random.below(length.min(4096)) } else { length - 1 - random.below(length.min(4096)) };
                bytes[at] = random.below(256) as u8;
            }
        }
    }
    bytes
}

fn compile(model: &Model, shape: &str) -> Result<(), aic::Error> {
    let config = Config::new().target(TargetSpec::new().triple("x86_64-unknown-linux-gnu"));
    let session = config.shape(shape)?.session()?;
    session.compile(model).map(|_| ())
}

#[test]
fn broken_onnx_files_are_compiled_or_refused() {
    let mut random = Random(1);
    let (mut compiled, mut refused) = (0, 0);
    for _ in 0..400 {
        let model = Model::from_onnx("broken", mutate(aic::digits::ONNX, &mut random));
        match compile(&model, "batch=1") {
            Ok(()) => compiled += 1,
            Err(e) => {
                assert_ne!(e.kind(), aic::ErrorKind::Internal, "{e}");
                refused += 1;
            }
        }
    }
    // Both happen, or the mutations miss the point.
    assert!(compiled > 10 && refused > 50, "{compiled} compiled, {refused} refused");
}

#[test]
fn broken_folders_are_compiled_or_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let config = br#"{"model_type": "bert", "vocab_size": 3, "hidden_size": 4, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 4, "max_position_embeddings": 4, "type_vocab_size": 1,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
    let header = br#"{"embeddings.word_embeddings.weight":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]}}"#;
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header);
    weights.extend([0; 48]);
    let mut random = Random(2);
    for i in 0..200 {
        let (c, w) = if i % 2 == 0 {
            (mutate(config, &mut random), weights.clone())
        } else {
            (config.to_vec(), mutate(&weights, &mut random))
        };
        fs::write(folder.path().join("config.json"), c).expect("writes");
        fs::write(folder.path().join("model.safetensors"), w).expect("writes");
        // Most of the weights are missing, so nothing compiles.
        let error = compile(&Model::open(folder.path()).expect("opens"), "seq=2").expect_err("refused");
        assert_ne!(error.kind(), aic::ErrorKind::Internal, "{error}");
    }
}

#[test]
fn external_data_stays_in_the_folder() {
    // A string field of an ONNX file that names a data file, changed to names outside: refused whatever the system has there.
    let assets = std::env::var_os("AIC_TEST_ASSETS").map(std::path::PathBuf::from);
    let assets = assets.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-assets"));
    let path = assets.join("onnx/minilm_ext.onnx");
    let bytes = fs::read(&path).unwrap_or_else(|e| {
        panic!("{}: {e}; to make it: python3 tests/models/setup.py", path.display());
    });
    let name = b"minilm_ext.data";
    assert!(bytes.windows(name.len()).any(|w| w == name));
    let folder = tempfile::tempdir().expect("folder");
    fs::create_dir(folder.path().join("model")).expect("makes");
    fs::write(folder.path().join("xx.data"), b"secret").expect("writes");
    for outside in ["../../../xx.data", "/tmp///////a.da", "./././././.data"] {
        let outside = format!("{outside:.<width$}", width = name.len());
        let mut changed = bytes.clone();
        let mut at = 0;
        while at + name.len() <= changed.len() {
            if changed[at..].starts_with(name) {
                changed[at..at + name.len()].copy_from_slice(&outside.as_bytes()[..name.len()]);
                at += name.len();
            } else {
                at += 1;
            }
        }
        let file = folder.path().join("model/m.onnx");
        fs::write(&file, changed).expect("writes");
        let error = compile(&Model::open(&file).expect("opens"), "seq=16").expect_err("refused");
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(text.contains("file name") || text.contains("no file") || text.contains("no input"), "{text}");
    }
}
