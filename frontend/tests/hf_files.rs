//! The files of Hugging Face folders: checkpoints in shards, and folders that lie about what they hold.

mod common;

use aic_frontend::{FileName, Files, MemoryFiles, hf};
use common::bindings;
use common::checkpoint::*;
use safetensors::Dtype;

const INDEX: &str = "model.safetensors.index.json";

fn refusal(files: &MemoryFiles) -> String {
    hf::read(files, &bindings(&["seq=3"])).expect_err("the folder should be refused").to_string()
}

/// A checkpoint's tensors in two files, with their index.
fn shards() -> MemoryFiles {
    let mut files = MemoryFiles::new();
    files.insert("config.json", BERT.as_bytes().to_vec());
    let mut map = serde_json::Map::new();
    for (name, keep) in [("one.safetensors", true), ("two.safetensors", false)] {
        let mut part = Checkpoint::bert(1);
        part.0.retain(|tensor, _| tensor.starts_with("embeddings.") == keep);
        map.extend(part.0.keys().map(|tensor| (tensor.clone(), name.into())));
        files.insert(name, part.bytes(Dtype::F32, ""));
    }
    files.insert(
        INDEX,
        serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string().into_bytes(),
    );
    files
}

fn text_of(files: &MemoryFiles, name: &str) -> String {
    let bytes = files.read(&FileName::new(name).expect("a plain name")).expect("a file of the folder");
    String::from_utf8(bytes.to_vec()).expect("JSON")
}

#[test]
fn shards_are_read_through_their_index() {
    let whole = hf::read(&bert(), &bindings(&["seq=3"])).expect("a good folder");
    let parts = hf::read(&shards(), &bindings(&["seq=3"])).expect("a good folder");
    assert_eq!(whole.to_string(), parts.to_string());
    // A whole checkpoint comes first.
    let mut both = bert();
    both.insert(INDEX, &b"{"[..]);
    assert!(hf::read(&both, &bindings(&["seq=3"])).is_ok());
}

#[test]
fn an_index_that_lies_is_refused() {
    let with = |from: &str, to: &str| {
        let mut files = shards();
        let text = text_of(&files, INDEX);
        assert!(text.contains(from), "{text}");
        files.insert(INDEX, text.replacen(from, to, 1).into_bytes());
        refusal(&files)
    };
    for (from, to, part) in [
        (r#""one.safetensors""#, r#""../one.safetensors""#, "only plain relative names"),
        (r#""one.safetensors""#, r#""/etc/passwd""#, "only plain relative names"),
        (r#""one.safetensors""#, r#""three.safetensors""#, "no file `three.safetensors`"),
        (r#""one.safetensors""#, r#""config.json""#, "config.json is not a safetensors file"),
        (r#""one.safetensors""#, r#""two.safetensors""#, "is not in `two.safetensors`"),
        (r#""embeddings.LayerNorm.bias""#, r#""other""#, "tensor `other` is not in `one.safetensors`"),
        (r#""weight_map":{"#, r#""weight_map":{"a":"one.safetensors","a":"two.safetensors","#, "`a` occurs twice"),
        (r#""weight_map""#, r#""map""#, "missing field `weight_map`"),
    ] {
        let text = with(from, to);
        assert!(text.contains(part), "{text:?} should contain {part:?}");
    }
    let mut twice = shards();
    let bytes = twice.read(&FileName::new("one.safetensors").expect("plain")).expect("a file");
    twice.insert("three.safetensors", bytes);
    let text = text_of(&twice, INDEX).replacen(r#""one.safetensors""#, r#""three.safetensors""#, 1);
    twice.insert(INDEX, text.into_bytes());
    assert!(refusal(&twice).contains("is in `one.safetensors` and in `three.safetensors`"));
}

/// Checkpoints of one tensor, written by hand.
#[test]
fn headers_that_lie_are_refused() {
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        refusal(&folder(BERT, bytes))
    };
    let entry = |shape: &str, start: u64, end: u64| {
        format!(
            r#""embeddings.word_embeddings.weight":{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#
        )
    };
    let damaged = "is not a safetensors file, or a damaged one";
    for (entries, data, part) in [
        (entry("[7,4]", 0, 112), 112, "`embeddings.token_type_embeddings.weight` is missing"),
        (entry("[7,4]", 0, 112), 100, damaged),
        (entry("[7,4]", 0, 112), 120, damaged),
        (entry("[7,4]", 4, 116), 116, damaged),
        (entry("[7,4]", 112, 0), 112, damaged),
        (entry("[7,4]", 0, u64::MAX), 112, damaged),
        (entry("[4294967296,4294967296]", 0, 0), 0, damaged),
        (entry("[18446744073709551615,2]", 0, 0), 0, damaged),
        (format!("{},{}", entry("[7,4]", 0, 112), entry("[7,4]", 0, 112)), 112, "occurs twice"),
        (format!("{},{}", entry("[7,4]", 0, 112), entry("[7,4]", 0, 112).replace("word", "b")), 112, damaged),
        (format!(r#""__metadata__":{{"a":"b"}},"__metadata__":{{}},{}"#, entry("[7,4]", 0, 112)), 112, damaged),
    ] {
        let text = file(&format!("{{{entries}}}"), data);
        assert!(text.contains(part), "{entries}: {text:?} should contain {part:?}");
    }
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 100] {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(b"{}");
        assert!(refusal(&folder(BERT, bytes)).contains(damaged));
    }
    assert!(file(&"[".repeat(100_000), 0).contains(damaged));
    assert!(file(&format!(r#"{{"a":{}"#, "{\"a\":".repeat(100_000)), 0).contains(damaged));
}

#[test]
fn numbers_of_a_configuration_are_checked_against_the_tensors() {
    let huge = "9223372036854775808";
    for key in ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"] {
        let mut config: serde_json::Value = serde_json::from_str(BERT).expect("JSON");
        for number in ["0", "1000000000", huge, "18446744073709551615", "-1", "1e30", "\"4\""] {
            config[key] = serde_json::from_str(number).expect("JSON");
            let text = refusal(&folder(&config.to_string(), Checkpoint::bert(1).bytes(Dtype::F32, "")));
            assert!(text.len() < 2000, "{text}");
        }
    }
    for (key, number) in [("max_position_embeddings", huge), ("type_vocab_size", huge), ("type_vocab_size", "0")] {
        let mut config: serde_json::Value = serde_json::from_str(BERT).expect("JSON");
        config[key] = serde_json::from_str(number).expect("JSON");
        refusal(&folder(&config.to_string(), Checkpoint::bert(1).bytes(Dtype::F32, "")));
    }
    let twice = BERT.replace(r#""hidden_size": 4"#, r#""hidden_size": 4, "hidden_size": 4"#);
    assert!(refusal(&folder(&twice, Checkpoint::bert(1).bytes(Dtype::F32, ""))).contains("duplicate field"));
    let deep = BERT.replace("{", &format!(r#"{{"x": {},"#, "[".repeat(100_000)));
    assert!(refusal(&folder(&deep, Vec::new())).contains("config.json: "));
}
