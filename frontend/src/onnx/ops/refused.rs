//! Operators that are refused on principle, with the reason: what the compiler is not for, or what its static shapes and
//! plain tensors cannot express.

/// Operators that are refused for one reason.
pub struct Refusal {
    /// Their names.
    pub names: &'static [&'static str],
    /// Why, in words that follow "the operator is not supported: ".
    pub reason: &'static str,
}

/// Every operator that is refused on principle; all others that are not in the table of supported ones are merely unknown.
pub const REFUSED: &[Refusal] = &[
    Refusal {
        names: &["Compress", "NonMaxSuppression", "NonZero", "Unique"],
        reason: "the shape of its result depends on its operand's elements, and all shapes are known when compiling",
    },
    Refusal {
        names: &[
            "ConcatFromSequence",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ],
        reason: "it is about sequences, and every value is one tensor",
    },
    Refusal {
        names: &["Optional", "OptionalGetElement", "OptionalHasElement"],
        reason: "it is about values that may be missing at run time, and every value is one tensor",
    },
    Refusal {
        names: &["RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer"],
        reason: "it is about texts, and every value is a tensor of numbers or truth values",
    },
    Refusal {
        names: &["Adagrad", "Adam", "Gradient", "Momentum", "NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"],
        reason: "it is for training, and models are compiled for inference",
    },
    Refusal {
        names: &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
        reason: "it is random, and compiled models compute the same for the same inputs",
    },
    Refusal { names: &["ImageDecoder"], reason: "it decodes files of images" },
];

/// Why an operator is refused on principle; `None` for all others.
pub(in crate::onnx) fn reason(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|r| r.names.contains(&name)).map(|r| r.reason)
}
