//! Tiny Hugging Face folders of all families.

use std::collections::BTreeMap;

use aic_frontend::MemoryFiles;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};

pub const BERT: &str = r#"{"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 7, "hidden_size": 4,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6, "max_position_embeddings": 8,
    "type_vocab_size": 2, "hidden_act": "gelu_new", "layer_norm_eps": 1e-5}"#;

pub const DISTILBERT: &str = r#"{"model_type": "distilbert", "architectures": ["DistilBertModel"], "vocab_size": 7,
    "dim": 4, "n_layers": 1, "n_heads": 2, "hidden_dim": 6, "max_position_embeddings": 8, "activation": "relu"}"#;

/// `config.json` of an architecture with one layer; embeddings of 3, where the family projects them.
pub fn config(model_type: &str, class: &str) -> String {
    let head = format!(r#""model_type": "{model_type}", "architectures": ["{class}"]"#);
    let (from, own) = match model_type {
        "distilbert" => (DISTILBERT, ""),
        "electra" | "albert" => (BERT, r#", "embedding_size": 3"#),
        "roberta" | "xlm-roberta" | "camembert" => (BERT, r#", "pad_token_id": 1"#),
        _ => (BERT, ""),
    };
    let sizes = from.split_once("], ").expect("sizes come after the classes").1.replace('}', "");
    format!("{{{head}, {sizes}{own}}}")
}

pub const MODULES: &str = r#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;

/// Tensors by name, with shapes; element `i` of each is `sin(i)`.
pub struct Checkpoint(pub BTreeMap<String, Vec<usize>>);

impl Checkpoint {
    pub fn bert(layers: usize) -> Self {
        let mut c = Self(BTreeMap::new());
        for (name, rows) in [("word", 7), ("position", 8), ("token_type", 2)] {
            c.add(&format!("embeddings.{name}_embeddings.weight"), &[rows, 4]);
        }
        c.norm("embeddings.LayerNorm");
        for layer in 0..layers {
            let stem = format!("encoder.layer.{layer}");
            for part in ["self.query", "self.key", "self.value", "output.dense"] {
                c.linear(&format!("{stem}.attention.{part}"), 4, 4);
            }
            c.norm(&format!("{stem}.attention.output.LayerNorm"));
            c.linear(&format!("{stem}.intermediate.dense"), 4, 6);
            c.linear(&format!("{stem}.output.dense"), 6, 4);
            c.norm(&format!("{stem}.output.LayerNorm"));
        }
        c.linear("pooler.dense", 4, 4);
        c
    }

    pub fn distilbert() -> Self {
        let mut c = Self(BTreeMap::new());
        for (name, rows) in [("word", 7), ("position", 8)] {
            c.add(&format!("embeddings.{name}_embeddings.weight"), &[rows, 4]);
        }
        c.norm("embeddings.LayerNorm");
        for part in ["q_lin", "k_lin", "v_lin", "out_lin"] {
            c.linear(&format!("transformer.layer.0.attention.{part}"), 4, 4);
        }
        c.norm("transformer.layer.0.sa_layer_norm");
        c.linear("transformer.layer.0.ffn.lin1", 4, 6);
        c.linear("transformer.layer.0.ffn.lin2", 6, 4);
        c.norm("transformer.layer.0.output_layer_norm");
        c
    }

    /// The encoder of an architecture, with a pooler where it has one.
    pub fn of(model_type: &str) -> Self {
        match model_type {
            "distilbert" => return Self::distilbert(),
            "electra" => {
                let mut c = Self::bert(1);
                c.0.retain(|name, _| !name.starts_with("pooler."));
                c.narrow();
                c.linear("embeddings_project", 3, 4);
                return c;
            }
            "albert" => {}
            _ => return Self::bert(1),
        }
        let mut c = Self::bert(0);
        c.0.retain(|name, _| !name.starts_with("pooler."));
        c.narrow();
        c.linear("encoder.embedding_hidden_mapping_in", 3, 4);
        let stem = "encoder.albert_layer_groups.0.albert_layers.0";
        for part in ["query", "key", "value", "dense"] {
            c.linear(&format!("{stem}.attention.{part}"), 4, 4);
        }
        c.norm(&format!("{stem}.attention.LayerNorm"));
        c.linear(&format!("{stem}.ffn"), 4, 6);
        c.linear(&format!("{stem}.ffn_output"), 6, 4);
        c.norm(&format!("{stem}.full_layer_layer_norm"));
        c.linear("pooler", 4, 4);
        c
    }

    /// Makes the embeddings 3 wide.
    fn narrow(&mut self) {
        for (_, shape) in self.0.iter_mut().filter(|(name, _)| name.starts_with("embeddings.")) {
            if let Some(last) = shape.last_mut() {
                *last = 3;
            }
        }
    }

    pub fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.insert(name.to_owned(), shape.to_vec());
    }

    pub fn linear(&mut self, name: &str, input: usize, output: usize) {
        self.add(&format!("{name}.weight"), &[output, input]);
        self.add(&format!("{name}.bias"), &[output]);
    }

    pub fn norm(&mut self, name: &str) {
        self.add(&format!("{name}.weight"), &[4]);
        self.add(&format!("{name}.bias"), &[4]);
    }

    pub fn bytes(&self, dtype: Dtype, prefix: &str) -> Vec<u8> {
        let data: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .0
            .iter()
            .map(|(name, shape)| {
                let values = (0..shape.iter().product::<usize>()).map(|i| (i as f32).sin());
                let bytes = match dtype {
                    Dtype::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
                    Dtype::BF16 => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
                    Dtype::I32 => values.flat_map(|v| (v as i32).to_le_bytes()).collect(),
                    _ => values.flat_map(f32::to_le_bytes).collect(),
                };
                (format!("{prefix}{name}"), shape.clone(), bytes)
            })
            .collect();
        let views = data.iter().map(|(name, shape, bytes)| {
            (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).expect("as many bytes as the shape has"))
        });
        serialize(views, None).expect("a valid checkpoint")
    }
}

pub fn folder(config: &str, weights: Vec<u8>) -> MemoryFiles {
    let mut files = MemoryFiles::new();
    files.insert("config.json", config.as_bytes().to_vec());
    files.insert("model.safetensors", weights);
    files
}

pub fn bert() -> MemoryFiles {
    folder(BERT, Checkpoint::bert(1).bytes(Dtype::F32, ""))
}

/// A folder of sentence-transformers; without layers, so that its output can be computed by hand.
pub fn sentence(pooling: &str) -> MemoryFiles {
    let config = BERT.replace(r#""num_hidden_layers": 1"#, r#""num_hidden_layers": 0"#);
    let mut files = folder(&config, Checkpoint::bert(0).bytes(Dtype::F32, ""));
    files.insert("modules.json", MODULES.as_bytes().to_vec());
    files.insert("1_Pooling/config.json", pooling.as_bytes().to_vec());
    files.insert("sentence_bert_config.json", &br#"{"max_seq_length": 5}"#[..]);
    files
}
