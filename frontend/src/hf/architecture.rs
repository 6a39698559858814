//! The architectures that are read: one row per `model_type`, and the names of their modules in checkpoints.

use crate::error::ReadError;

/// What differs in computation between encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Devlin et al., arXiv 1810.04805.
    Bert,
    /// Sanh et al., arXiv 1910.01108: no token types, no pooler.
    DistilBert,
    /// Liu et al., arXiv 1907.11692: positions are counted from the padding token's number on, over tokens alone.
    Roberta,
    /// Clark et al., arXiv 2003.10555: embeddings of a size of their own, no pooler.
    Electra,
    /// Lan et al., arXiv 1909.11942: embeddings of a size of their own, layers that share weights.
    Albert,
}

/// A value of `model_type`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// `model_type` of `config.json`.
    pub model_type: &'static str,
    /// What the names of its classes start with: `Bert` of `BertModel`.
    pub class: &'static str,
    /// What precedes the encoder's names where the checkpoint was saved with a head.
    pub prefix: &'static str,
    /// What it computes.
    pub family: Family,
}

const ARCHITECTURES: [Architecture; 7] = [
    Architecture { model_type: "albert", class: "Albert", prefix: "albert.", family: Family::Albert },
    Architecture { model_type: "bert", class: "Bert", prefix: "bert.", family: Family::Bert },
    Architecture { model_type: "camembert", class: "Camembert", prefix: "roberta.", family: Family::Roberta },
    Architecture { model_type: "distilbert", class: "DistilBert", prefix: "distilbert.", family: Family::DistilBert },
    Architecture { model_type: "electra", class: "Electra", prefix: "electra.", family: Family::Electra },
    Architecture { model_type: "roberta", class: "Roberta", prefix: "roberta.", family: Family::Roberta },
    Architecture { model_type: "xlm-roberta", class: "XLMRoberta", prefix: "roberta.", family: Family::Roberta },
];

/// The supported values of `model_type`.
pub fn model_types() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|a| a.model_type)
}

/// The architecture of a `model_type`.
pub(super) fn find(model_type: Option<&str>) -> Result<&'static Architecture, ReadError> {
    let found = ARCHITECTURES.iter().find(|a| Some(a.model_type) == model_type);
    found.ok_or_else(|| {
        let supported = model_types().collect::<Vec<_>>().join(", ");
        ReadError::Unsupported(match model_type {
            Some(other) => format!("architecture `{other}`; supported are {supported}"),
            None => format!("config.json has no model_type; supported are {supported}"),
        })
    })
}

/// What is computed from the hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// The hidden states themselves, and the pooler's output where the checkpoint has one.
    Encoder,
    SequenceClassification,
    TokenClassification,
    QuestionAnswering,
    MaskedLm,
    PreTraining,
    NextSentencePrediction,
}

/// What follows the architecture's name in the names of its classes.
const HEADS: [(&str, Head); 7] = [
    ("Model", Head::Encoder),
    ("ForSequenceClassification", Head::SequenceClassification),
    ("ForTokenClassification", Head::TokenClassification),
    ("ForQuestionAnswering", Head::QuestionAnswering),
    ("ForMaskedLM", Head::MaskedLm),
    ("ForPreTraining", Head::PreTraining),
    ("ForNextSentencePrediction", Head::NextSentencePrediction),
];

impl Head {
    /// The head of a class: `ForMaskedLM` of `BertForMaskedLM`.
    pub fn of_class(architecture: &Architecture, class: &str) -> Result<Self, ReadError> {
        let suffix = class.strip_prefix(architecture.class).unwrap_or_default();
        let head = HEADS.iter().find(|(name, _)| *name == suffix).map(|&(_, head)| head);
        head.filter(|&head| architecture.has(head)).ok_or_else(|| {
            let names = HEADS.iter().filter(|&&(_, head)| architecture.has(head));
            let names: Vec<String> = names.map(|(name, _)| format!("{}{name}", architecture.class)).collect();
            ReadError::Unsupported(format!(
                "class `{class}` of model_type `{}`; supported are {}",
                architecture.model_type,
                names.join(", ")
            ))
        })
    }
}

impl Architecture {
    /// Whether there is a class with this head.
    fn has(&self, head: Head) -> bool {
        match head {
            Head::PreTraining => matches!(self.family, Family::Bert | Family::Electra | Family::Albert),
            Head::NextSentencePrediction => self.family == Family::Bert,
            _ => true,
        }
    }

    /// Whether `token_type_ids` is an input. The exporters of the others leave it out, as tokens are of one type.
    pub fn takes_token_types(&self) -> bool {
        matches!(self.family, Family::Bert | Family::Electra | Family::Albert)
    }

    /// The module before the tanh on the first token, in the encoder's names.
    pub fn pooler(&self) -> Option<&'static str> {
        match self.family {
            Family::Bert | Family::Roberta => Some("pooler.dense"),
            Family::Albert => Some("pooler"),
            Family::DistilBert | Family::Electra => None,
        }
    }
}

/// Names of a layer's modules in the checkpoint.
pub(super) struct LayerNames {
    pub query: String,
    pub key: String,
    pub value: String,
    pub attention_output: String,
    pub attention_norm: String,
    pub inner: String,
    pub outer: String,
    pub output_norm: String,
}

impl LayerNames {
    /// Names of the modules of the layer whose own name is `stem`.
    pub fn new(family: Family, stem: &str) -> Self {
        let parts = match family {
            Family::Bert | Family::Roberta | Family::Electra => [
                "attention.self.query",
                "attention.self.key",
                "attention.self.value",
                "attention.output.dense",
                "attention.output.LayerNorm",
                "intermediate.dense",
                "output.dense",
                "output.LayerNorm",
            ],
            Family::DistilBert => [
                "attention.q_lin",
                "attention.k_lin",
                "attention.v_lin",
                "attention.out_lin",
                "sa_layer_norm",
                "ffn.lin1",
                "ffn.lin2",
                "output_layer_norm",
            ],
            Family::Albert => [
                "attention.query",
                "attention.key",
                "attention.value",
                "attention.dense",
                "attention.LayerNorm",
                "ffn",
                "ffn_output",
                "full_layer_layer_norm",
            ],
        };
        let [query, key, value, attention_output, attention_norm, inner, outer, output_norm] =
            parts.map(|part| format!("{stem}.{part}"));
        Self { query, key, value, attention_output, attention_norm, inner, outer, output_norm }
    }
}
