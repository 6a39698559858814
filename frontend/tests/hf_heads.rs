//! Classes of Hugging Face folders: the outputs of each, the tensors that each uses, and what becomes of the others.

mod common;

use std::collections::BTreeSet;

use aic_frontend::{MemoryFiles, ShapeBindings, hf};
use aic_ir::graph::Graph;
use common::checkpoint::*;
use common::*;
use safetensors::Dtype;

/// `MODEL_TYPE CLASS: TENSOR IN>OUT … -> OUTPUT …`: the linear layers, norms (`N`) and vectors (`[N]`) of the head, and
/// the outputs for a batch of 2 and a sequence of 3.
const CLASSES: &str = "
bert BertForSequenceClassification: classifier 4>3 -> logits: f32[2, 3]
bert BertForTokenClassification: classifier 4>3 -> logits: f32[2, 3, 3]
bert BertForQuestionAnswering: qa_outputs 4>2 -> start_logits: f32[2, 3] end_logits: f32[2, 3]
bert BertForMaskedLM: cls.predictions.transform.dense 4>4 cls.predictions.transform.LayerNorm 4 cls.predictions.bias [7] -> logits: f32[2, 3, 7]
bert BertForNextSentencePrediction: cls.seq_relationship 4>2 -> logits: f32[2, 2]
bert BertForPreTraining: cls.predictions.transform.dense 4>4 cls.predictions.transform.LayerNorm 4 cls.predictions.bias [7] cls.seq_relationship 4>2 -> prediction_logits: f32[2, 3, 7] seq_relationship_logits: f32[2, 2]
distilbert DistilBertForSequenceClassification: pre_classifier 4>4 classifier 4>3 -> logits: f32[2, 3]
distilbert DistilBertForTokenClassification: classifier 4>3 -> logits: f32[2, 3, 3]
distilbert DistilBertForQuestionAnswering: qa_outputs 4>2 -> start_logits: f32[2, 3] end_logits: f32[2, 3]
distilbert DistilBertForMaskedLM: vocab_transform 4>4 vocab_layer_norm 4 vocab_projector.bias [7] -> logits: f32[2, 3, 7]
roberta RobertaForSequenceClassification: classifier.dense 4>4 classifier.out_proj 4>3 -> logits: f32[2, 3]
xlm-roberta XLMRobertaForTokenClassification: classifier 4>3 -> logits: f32[2, 3, 3]
camembert CamembertForQuestionAnswering: qa_outputs 4>2 -> start_logits: f32[2, 3] end_logits: f32[2, 3]
roberta RobertaForMaskedLM: lm_head.dense 4>4 lm_head.layer_norm 4 lm_head.bias [7] -> logits: f32[2, 3, 7]
electra ElectraForSequenceClassification: classifier.dense 4>4 classifier.out_proj 4>3 -> logits: f32[2, 3]
electra ElectraForMaskedLM: generator_predictions.dense 4>3 generator_predictions.LayerNorm 3 generator_lm_head.bias [7] -> logits: f32[2, 3, 7]
electra ElectraForPreTraining: discriminator_predictions.dense 4>4 discriminator_predictions.dense_prediction 4>1 -> logits: f32[2, 3]
albert AlbertForSequenceClassification: classifier 4>3 -> logits: f32[2, 3]
albert AlbertForMaskedLM: predictions.dense 4>3 predictions.LayerNorm 3 predictions.bias [7] -> logits: f32[2, 3, 7]
albert AlbertForPreTraining: predictions.dense 4>3 predictions.LayerNorm 3 predictions.bias [7] sop_classifier.classifier 4>2 -> prediction_logits: f32[2, 3, 7] sop_logits: f32[2, 2]
";

/// A row of [`CLASSES`].
struct Class {
    model_type: &'static str,
    name: &'static str,
    head: Checkpoint,
    outputs: &'static str,
}

fn classes() -> Vec<Class> {
    let row = |line: &'static str| {
        let (class, rest) = line.split_once(": ").expect("a class");
        let (model_type, name) = class.split_once(' ').expect("a model type");
        let (modules, outputs) = rest.split_once(" -> ").expect("outputs");
        let mut head = Checkpoint(std::collections::BTreeMap::new());
        let words: Vec<&str> = modules.split(' ').collect();
        let number = |text: &str| text.parse::<usize>().expect("a size");
        for pair in words.as_chunks::<2>().0 {
            let [module, size] = *pair;
            if let Some((input, output)) = size.split_once('>') {
                head.linear(module, number(input), number(output));
            } else if let Some(size) = size.strip_prefix('[') {
                head.add(module, &[number(size.trim_end_matches(']'))]);
            } else {
                head.add(&format!("{module}.weight"), &[number(size)]);
                head.add(&format!("{module}.bias"), &[number(size)]);
            }
        }
        Class { model_type, name, head, outputs }
    };
    CLASSES.trim().lines().map(row).collect()
}

fn class(name: &str) -> Class {
    classes().into_iter().find(|c| c.name == name).expect("a row of the table")
}

impl Class {
    /// Whether the class begins with the pooler.
    fn pools(&self) -> bool {
        let pooled = ["SequenceClassification", "NextSentencePrediction", "PreTraining"];
        matches!(self.model_type, "bert" | "albert") && pooled.iter().any(|end| self.name.ends_with(end))
    }

    /// The folder, as `save_pretrained` names tensors: the encoder's with a prefix.
    fn folder(&self, more: &[(&str, &[usize])]) -> MemoryFiles {
        let prefix = match self.model_type {
            "camembert" | "xlm-roberta" => "roberta",
            other => other,
        };
        let mut all = Checkpoint(std::collections::BTreeMap::new());
        for (name, shape) in Checkpoint::of(self.model_type).0 {
            all.add(&format!("{prefix}.{name}"), &shape);
        }
        for (name, shape) in &self.head.0 {
            all.add(name, shape);
        }
        for (name, shape) in more {
            all.add(name, shape);
        }
        folder(&config(self.model_type, self.name), all.bytes(Dtype::F32, ""))
    }

    fn read(&self, more: &[(&str, &[usize])]) -> Graph {
        let graph = hf::read(&self.folder(more), &bindings(&["batch=2", "seq=3"]));
        graph.unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }

    fn refusal(&self, more: &[(&str, &[usize])]) -> String {
        hf::read(&self.folder(more), &bindings(&["seq=3"])).expect_err("the folder should be refused").to_string()
    }
}

fn used(graph: &Graph) -> BTreeSet<String> {
    let constants = graph.values.iter().filter(|&(v, d)| graph.const_of(v).is_some() && !d.name.is_empty());
    constants.map(|(_, d)| d.name.clone()).collect()
}

fn inputs(graph: &Graph, ids: [i64; 6], mask: [i64; 6]) -> Vec<aic_ir::types::Tensor> {
    [ids, mask, [0, 1, 0, 0, 0, 1]].iter().take(graph.inputs.len()).map(|v| i64s(&[2, 3], v)).collect()
}

#[test]
fn each_class_has_its_outputs_and_uses_its_tensors() {
    for class in classes() {
        let graph = class.read(&[]);
        graph.verify().unwrap_or_else(|e| panic!("{}: {e}", class.name));
        let outputs: Vec<String> = graph.outputs.iter().map(|o| format!("{}: {}", o.name, graph.ty(o.value))).collect();
        assert_eq!(outputs.join(" "), class.outputs, "{}", class.name);
        let mut tensors: BTreeSet<String> = Checkpoint::of(class.model_type).0.into_keys().collect();
        // A checkpoint may keep a pooler that its class does not use.
        tensors.retain(|name| !name.starts_with("pooler") || class.pools());
        tensors.extend(class.head.0.keys().cloned());
        assert_eq!(used(&graph), tensors, "{}", class.name);
        for (i, output) in graph.outputs.iter().enumerate() {
            let values = evaluate(&graph, &inputs(&graph, [2, 3, 4, 5, 6, 1], [1, 1, 1, 1, 1, 0]), i);
            assert!(values.iter().all(|v| v.is_finite()), "{}: {} is {values:?}", class.name, output.name);
        }
        let seen = hf::inspect(&class.folder(&[]), &ShapeBindings::new()).expect("a good folder");
        assert!(seen.unused.is_empty(), "{}: {:?}", class.name, seen.unused);
    }
}

/// By hand: tokens are counted from the padding token's number on, which is 1, and padding stands at that number.
#[test]
fn roberta_counts_positions_over_tokens_alone() {
    let config = config("roberta", "RobertaModel").replace(r#""num_hidden_layers": 1"#, r#""num_hidden_layers": 0"#);
    let files = folder(&config, Checkpoint::bert(0).bytes(Dtype::F32, ""));
    let graph = hf::read(&files, &bindings(&["batch=2", "seq=3"])).expect("a good folder");
    assert_eq!(graph.inputs.len(), 2);
    let ids = [3, 1, 4, 1, 1, 5];
    let hidden = evaluate(&graph, &inputs(&graph, ids, [1; 6]), 0);
    // Every tensor holds `sin(i)`.
    let expected: Vec<f64> = ids
        .iter()
        .zip([2, 1, 3, 1, 1, 2])
        .flat_map(|(&id, place)| {
            let row = |r: i64| (0..4).map(move |c| f64::from(((r * 4 + c) as f32).sin()));
            let sum: Vec<f64> = row(id).zip(row(place)).zip(row(0)).map(|((a, b), c)| a + b + c).collect();
            let mean = sum.iter().sum::<f64>() / 4.0;
            let variance = sum.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 4.0;
            let norm =
                move |(i, x): (usize, f64)| (x - mean) / (variance + 1e-5).sqrt() * (i as f64).sin() + (i as f64).sin();
            sum.into_iter().enumerate().map(norm).collect::<Vec<f64>>()
        })
        .collect();
    assert_close(&hidden, &expected);
    let text = hf::read(&files, &bindings(&["seq=7"])).expect_err("too long").to_string();
    assert!(text.contains("6 positions (max_position_embeddings, less those up to pad_token_id)"), "{text}");
}

#[test]
fn layers_that_share_weights_are_one_set_of_constants() {
    let config = config("albert", "AlbertModel").replace(r#""num_hidden_layers": 1"#, r#""num_hidden_layers": 3"#);
    let files = folder(&config, Checkpoint::of("albert").bytes(Dtype::F32, ""));
    let graph = hf::read(&files, &bindings(&["seq=3"])).expect("a good folder");
    let attention = ops(&graph).into_iter().filter(|op| matches!(op, aic_ir::graph::Op::Attention { .. }));
    assert_eq!(attention.count(), 3);
    let named = graph.values.values().filter(|d| d.name == "encoder.albert_layer_groups.0.albert_layers.0.ffn.weight");
    assert_eq!(named.count(), 1);
    // Weights for one layer do not make a graph of any length.
    let endless = config.replace(r#""num_hidden_layers": 3"#, r#""num_hidden_layers": 1000000000"#);
    let files = folder(&endless, Checkpoint::of("albert").bytes(Dtype::F32, ""));
    let text = hf::read(&files, &bindings(&["seq=3"])).expect_err("endless").to_string();
    assert!(text.contains("more nodes than"), "{text}");
}

#[test]
fn a_language_model_shares_its_last_matrix_with_the_embeddings() {
    let class = class("BertForMaskedLM");
    let words = "bert.embeddings.word_embeddings.weight";
    // Both names of the bias, and a copy of the embeddings, as `torch.save` keeps them.
    let copies: [(&str, &[usize]); 2] =
        [("cls.predictions.decoder.weight", &[7, 4]), ("cls.predictions.decoder.bias", &[7])];
    assert!(!used(&class.read(&copies)).contains("cls.predictions.decoder.weight"));

    let untied =
        config("bert", class.name).replace(r#""hidden_size""#, r#""tie_word_embeddings": false, "hidden_size""#);
    let with = |config: &str, more: &[(&str, &[usize])]| {
        let mut files = class.folder(more);
        files.insert("config.json", config.to_owned().into_bytes());
        hf::read(&files, &bindings(&["seq=3"]))
    };
    assert!(with(&untied, &[]).is_err_and(|e| e.to_string().contains("`cls.predictions.decoder.weight` is missing")));
    let graph = with(&untied, &copies).expect("a good folder");
    assert!(used(&graph).contains("cls.predictions.decoder.weight"));

    // The same copy, but the embeddings are other numbers.
    let mut files = class.folder(&copies);
    let name = aic_frontend::FileName::new("model.safetensors").expect("a plain name");
    let mut bytes = aic_frontend::Files::read(&files, &name).expect("written above").to_vec();
    let header = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("a header")) as usize;
    let entries: serde_json::Value = serde_json::from_slice(&bytes[8..header]).expect("a header");
    let start = header + entries[words]["data_offsets"][0].as_u64().expect("an offset") as usize;
    bytes[start] ^= 1;
    files.insert("model.safetensors", bytes);
    let text = hf::read(&files, &bindings(&["seq=3"])).expect_err("two matrices").to_string();
    assert!(text.contains("their values differ"), "{text}");
}

#[test]
fn the_number_of_labels_is_the_configurations() {
    let class = class("BertForSequenceClassification");
    let labels = |text: &str| {
        let mut files = class.folder(&[]);
        let text = config("bert", class.name).replace(r#""hidden_size""#, &format!(r#"{text}, "hidden_size""#));
        files.insert("config.json", text.into_bytes());
        hf::read(&files, &bindings(&["seq=3"])).map_err(|e| e.to_string())
    };
    assert!(labels(r#""id2label": {"0": "a", "1": "b", "2": "c"}, "problem_type": "regression""#).is_ok());
    assert!(labels(r#""num_labels": 3"#).is_ok());
    let text = labels(r#""id2label": {"0": "a"}"#).expect_err("three are stored");
    assert!(text.contains("`classifier.weight` has shape [3, 4], but config.json asks for [1, 4]"), "{text}");
}

#[test]
fn tensors_that_nothing_uses_are_ignored_listed_or_refused() {
    let class = class("BertForTokenClassification");
    // Buffers of older versions, and another head.
    let more: [(&str, &[usize]); 3] = [
        ("bert.embeddings.position_ids", &[1, 8]),
        ("cls.seq_relationship.weight", &[2, 4]),
        ("qa_outputs.bias", &[2]),
    ];
    class.read(&more);
    let seen = hf::inspect(&class.folder(&more), &ShapeBindings::new()).expect("a good folder");
    assert_eq!(seen.unused, ["cls.seq_relationship.weight", "qa_outputs.bias"]);

    let text = class.refusal(&[("bert.encoder.layer.1.output.dense.weight", &[4, 6]), ("fit_dense.bias", &[4])]);
    assert!(text.contains("2 nodes") && text.contains("`encoder.layer.1.output.dense.weight` (tensor)"), "{text}");
    assert!(text.contains("`fit_dense.bias` (tensor): no part of `BertForTokenClassification` uses"), "{text}");

    // Without a class, a head may be meant.
    let mut files = class.folder(&[]);
    let unnamed = config("bert", class.name).replace(r#""architectures": ["BertForTokenClassification"], "#, "");
    files.insert("config.json", unnamed.into_bytes());
    let text = hf::read(&files, &bindings(&["seq=3"])).expect_err("no class").to_string();
    assert!(text.contains("`classifier.weight`") && text.contains("names no class in architectures"), "{text}");
}
