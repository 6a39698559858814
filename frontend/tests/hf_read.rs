//! Reading Hugging Face folders: tiny checkpoints, their modules, and what is refused.

mod common;

use aic_frontend::{Dim, MemoryFiles, ReadError, Refused, ShapeBindings, hf};
use aic_ir::graph::{GeluKind, Op};
use common::checkpoint::*;
use common::*;
use proptest::prelude::*;
use safetensors::Dtype;

fn refusal(files: &MemoryFiles, flags: &[&str]) -> String {
    hf::read(files, &bindings(flags)).expect_err("the folder should be refused").to_string()
}

fn outputs(graph: &aic_ir::graph::Graph) -> Vec<String> {
    graph.outputs.iter().map(|o| format!("{}: {}", o.name, graph.ty(o.value))).collect()
}

#[test]
fn bert_has_three_inputs_and_a_pooler() {
    let graph = hf::read(&bert(), &bindings(&["seq=3"])).expect("a good folder");
    graph.verify().unwrap_or_else(|e| panic!("{e}"));
    let inputs: Vec<String> =
        graph.inputs.iter().map(|&v| format!("{}: {}", graph.values[v].name, graph.ty(v))).collect();
    assert_eq!(inputs, ["input_ids: i64[1, 3]", "attention_mask: i64[1, 3]", "token_type_ids: i64[1, 3]"]);
    assert_eq!(outputs(&graph), ["last_hidden_state: f32[1, 3, 4]", "pooler_output: f32[1, 4]"]);
    let attention = graph.order.iter().map(|&n| &graph.nodes[n]).find(|n| matches!(n.op, Op::Attention { .. }));
    let attention = attention.expect("an attention node");
    assert_eq!(attention.name, "encoder.layer.0.attention.self");
    assert_eq!(attention.op, Op::Attention { scale: 1.0 / 2f32.sqrt() });
    assert!(ops(&graph).contains(&&Op::Gelu(GeluKind::Tanh)));
}

#[test]
fn distilbert_has_two_inputs_and_names_of_its_own() {
    let files = folder(DISTILBERT, Checkpoint::distilbert().bytes(Dtype::F32, "distilbert."));
    let graph = hf::read(&files, &bindings(&["input_ids=2x3"])).expect("a good folder");
    graph.verify().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((graph.inputs.len(), outputs(&graph)), (2, vec!["last_hidden_state: f32[2, 3, 4]".to_owned()]));
    assert!(graph.nodes.values().any(|n| n.name == "transformer.layer.0.ffn.lin1"));
}

/// Nothing is read twice or left out, so no module takes another's weights.
#[test]
fn every_tensor_is_used_once() {
    let folders = [(BERT, Checkpoint::bert(1)), (DISTILBERT, Checkpoint::distilbert())];
    for (config, checkpoint) in folders {
        let graph = hf::read(&folder(config, checkpoint.bytes(Dtype::F32, "")), &bindings(&["seq=2"]));
        let graph = graph.expect("a good folder");
        let constants = graph.values.iter().filter(|&(v, d)| graph.const_of(v).is_some() && !d.name.is_empty());
        let mut names: Vec<&str> = constants.map(|(_, d)| d.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, checkpoint.0.keys().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn tokens_do_not_attend_to_padding() {
    let graph = hf::read(&bert(), &bindings(&["seq=3"])).expect("a good folder");
    let first = |ids: [i64; 3], mask: [i64; 3]| {
        let inputs = [i64s(&[1, 3], &ids), i64s(&[1, 3], &mask), i64s(&[1, 3], &[0; 3])];
        let hidden = evaluate(&graph, &inputs, 0);
        assert!(hidden.iter().all(|v| v.is_finite()), "{hidden:?}");
        hidden[..4].to_vec()
    };
    assert_eq!(first([1, 2, 3], [1, 1, 0]), first([1, 2, 6], [1, 1, 0]));
    assert_ne!(first([1, 2, 3], [1, 1, 1]), first([1, 2, 6], [1, 1, 1]));
    assert_ne!(first([1, 2, 3], [1, 1, 0]), first([1, 5, 3], [1, 1, 0]));
}

/// The embedding of a sentence with padding, from the hidden states of the same run.
#[test]
fn pooling_ignores_padding() {
    let modes = |names: &[&str]| {
        let set: Vec<String> = names.iter().map(|n| format!(r#""pooling_mode_{n}": true"#)).collect();
        sentence(&format!(r#"{{"word_embedding_dimension": 4, {}}}"#, set.join(", ")))
    };
    let inputs = [i64s(&[1, 3], &[1, 2, 3]), i64s(&[1, 3], &[1, 1, 0]), i64s(&[1, 3], &[0, 0, 1])];
    let normalized = |v: Vec<f64>| {
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter().map(|x| x / norm).collect::<Vec<f64>>()
    };
    let run = |names: &[&str]| {
        let graph = hf::read(&modes(names), &bindings(&["seq=3"])).expect("a good folder");
        (evaluate(&graph, &inputs, 0), evaluate(&graph, &inputs, 1))
    };
    let (hidden, mean) = run(&["mean_tokens"]);
    let column = |f: fn(f64, f64) -> f64| (0..4).map(|i| f(hidden[i], hidden[4 + i])).collect::<Vec<f64>>();
    assert_close(&mean, &normalized(column(|a, b| (a + b) / 2.0)));
    assert_close(&run(&["cls_token"]).1, &normalized(column(|a, _| a)));
    assert_close(&run(&["max_tokens"]).1, &normalized(column(f64::max)));
    let joined = [column(|a, _| a), column(|a, b| (a + b) / 2f64.sqrt())].concat();
    assert_close(&run(&["mean_sqrt_len_tokens", "cls_token"]).1, &normalized(joined));
}

#[test]
fn the_sequence_comes_from_a_flag_or_from_the_folder() {
    let text = refusal(&bert(), &[]);
    assert!(text.contains("`input_ids` is i64[batch, seq]") && text.contains("--shape seq=128"), "{text}");
    assert!(refusal(&bert(), &["seq=9"]).contains("has 8 positions (max_position_embeddings)"));
    assert!(refusal(&bert(), &["seq=0"]).contains("at least 1"));
    let stated = hf::read(&sentence(r#"{"pooling_mode_mean_tokens": true}"#), &ShapeBindings::new());
    let expected = ["last_hidden_state: f32[1, 5, 4]", "sentence_embedding: f32[1, 4]"];
    assert_eq!(stated.map(|g| outputs(&g)), Ok(expected.map(str::to_owned).to_vec()));
    let seen = hf::inspect(&bert(), &ShapeBindings::new()).expect("a good folder");
    assert_eq!(seen.outputs, ["last_hidden_state", "pooler_output"]);
    let dims = [Dim::Symbol("batch".into()), Dim::Symbol("seq".into())];
    assert_eq!(seen.inputs[2].dims.as_deref(), Some(&dims[..]));
}

#[test]
fn sixteen_bit_weights_become_f32() {
    let words = |dtype| {
        let files = folder(BERT, Checkpoint::bert(1).bytes(dtype, "bert."));
        let graph = hf::read(&files, &bindings(&["seq=1"])).expect("a good folder");
        let value = graph.values.iter().find(|(_, d)| d.name == "embeddings.word_embeddings.weight");
        graph.const_of(value.expect("the embedding").0).expect("a constant").clone()
    };
    let exact = words(Dtype::F32);
    for (dtype, error) in [(Dtype::F16, 1e-3), (Dtype::BF16, 1e-2)] {
        let rounded = words(dtype);
        assert_eq!(rounded.ty(), exact.ty());
        for i in 0..exact.ty().elems() {
            let (a, b) = (rounded.get_f64(i).expect("inside"), exact.get_f64(i).expect("inside"));
            assert!((a - b).abs() < error, "{a} and {b}");
        }
    }
    let other = folder(BERT, Checkpoint::bert(1).bytes(Dtype::I32, ""));
    assert!(refusal(&other, &["seq=1"]).contains("element type I32"));
}

#[test]
fn weights_are_ranges_of_the_file() {
    let bytes = bytes::Bytes::from(Checkpoint::bert(1).bytes(Dtype::F32, ""));
    let mut files = bert();
    files.insert("model.safetensors", bytes.clone());
    let graph = hf::read(&files, &bindings(&["seq=1"])).expect("a good folder");
    let weights = graph.values.iter().filter(|(_, d)| d.name.ends_with(".weight"));
    let weights: Vec<_> = weights.filter_map(|(v, _)| graph.const_bytes(v)).collect();
    assert!(weights.len() > 10 && weights.iter().all(|w| bytes.as_ptr_range().contains(&w.as_ptr())));
}

#[test]
fn what_is_not_supported_is_named() {
    let config = |from: &str, to: &str| {
        assert!(BERT.contains(from));
        let mut files = bert();
        files.insert("config.json", BERT.replace(from, to));
        refusal(&files, &["seq=2"])
    };
    for (from, to, part) in [
        (r#""bert""#, r#""gpt2""#, "architecture `gpt2`; supported are albert, bert, camembert, distilbert"),
        (r#""model_type": "bert", "#, "", "has no model_type"),
        (
            "BertModel",
            "BertForMultipleChoice",
            "class `BertForMultipleChoice` of model_type `bert`; supported are BertModel",
        ),
        ("BertModel", "BertLMHeadModel", "class `BertLMHeadModel`"),
        ("BertModel", "RobertaModel", "class `RobertaModel`"),
        (r#""BertModel""#, r#""BertModel", "BertForMaskedLM""#, "more than one class"),
        ("BertModel", "BertForMaskedLM", "`cls.predictions.transform.dense.weight` is missing"),
        ("gelu_new", "quick_gelu", "activation `quick_gelu`"),
        (r#""type_vocab_size""#, r#""quantization_config": {}, "type_vocab_size""#, "quantization_config"),
        (r#""type_vocab_size""#, r#""position_embedding_type": "relative_key", "type_vocab_size""#, "`relative_key`"),
        (r#""type_vocab_size""#, r#""is_decoder": true, "type_vocab_size""#, "is_decoder"),
        (r#""num_attention_heads": 2"#, r#""num_attention_heads": 3"#, "3 attention heads do not divide"),
        (r#""num_attention_heads": 2"#, r#""num_attention_heads": 0"#, "0 attention heads do not divide"),
        (
            r#""num_hidden_layers": 1"#,
            r#""num_hidden_layers": 2"#,
            "`encoder.layer.1.attention.self.query.weight` is missing",
        ),
        (r#""intermediate_size": 6"#, r#""intermediate_size": 5"#, "has shape [6, 4], but config.json asks for [5, 4]"),
        (r#""hidden_size": 4"#, r#""hidden_size": -4"#, "config.json: invalid value"),
        (
            r#""vocab_size": 7"#,
            r#""vocab_size": 99999999999999999"#,
            "`embeddings.word_embeddings.weight` has shape [7, 4]",
        ),
        ("{", "", "config.json: "),
    ] {
        let text = config(from, to);
        assert!(text.contains(part), "{text:?} should contain {part:?}");
    }
}

#[test]
fn pruned_heads_missing_files_and_strange_modules_are_named() {
    let mut pruned = Checkpoint::bert(1);
    pruned.add("encoder.layer.0.attention.self.query.weight", &[2, 4]);
    let text = refusal(&folder(BERT, pruned.bytes(Dtype::F32, "")), &["seq=2"]);
    assert!(text.contains("pruned attention heads are not supported"), "{text}");

    assert!(refusal(&MemoryFiles::new(), &[]).contains("no file `config.json`"));
    let mut without = MemoryFiles::new();
    without.insert("config.json", BERT.as_bytes().to_vec());
    assert!(refusal(&without, &[]).contains("call `model.save_pretrained(folder, safe_serialization=True)`"));

    let mean = r#"{"pooling_mode_mean_tokens": true}"#;
    let modules = |from: &str, to: &str| {
        let mut files = sentence(mean);
        files.insert("modules.json", MODULES.replace(from, to));
        hf::read(&files, &ShapeBindings::new()).expect_err("the folder should be refused")
    };
    let ReadError::Refused(Refused { nodes }) = modules("models.Normalize", "models.Dense") else {
        panic!("not listed")
    };
    assert_eq!((nodes.len(), nodes[0].op.as_str()), (1, "sentence_transformers.models.Dense"));
    assert!(modules("1_Pooling", "../1_Pooling").to_string().contains("only plain relative names"));
    assert!(refusal(&sentence(r#"{"word_embedding_dimension": 5}"#), &[]).contains("is 5, but the encoder gives 4"));
    assert!(refusal(&sentence(r#"{"pooling_mode_lasttoken": true}"#), &[]).contains("last token"));
    assert!(refusal(&sentence("{}"), &[]).contains("no mode that is supported"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_folders_are_read_or_refused(
        file in prop::sample::select(vec!["config.json", "model.safetensors", "modules.json", "1_Pooling/config.json"]),
        cut in 0.0..1.5f64,
        changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 0..4),
    ) {
        let mut files = sentence(r#"{"pooling_mode_mean_tokens": true}"#);
        let name = aic_frontend::FileName::new(file).expect("a plain name");
        let mut bytes = aic_frontend::Files::read(&files, &name).expect("a file of the folder").to_vec();
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        // The header of a checkpoint is at its start, so that is where most changes go.
        let reach = bytes.len().min(1200) as f64;
        for (place, value) in changes {
            if let Some(byte) = bytes.get_mut((reach * place) as usize) {
                *byte = value;
            }
        }
        files.insert(file, bytes);
        if let Ok(graph) = hf::read(&files, &ShapeBindings::new()) {
            prop_assert!(graph.verify().is_ok());
        }
    }
}
