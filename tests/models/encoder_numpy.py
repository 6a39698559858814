"""BERT-like encoders and their heads in binary64, from the definitions in the papers and the classes of `transformers`.

Tensors have the names of `transformers`' checkpoints, without the prefix of the encoder. `b` is the batch, `s` the
sequence, `h` the hidden size. The families: Devlin et al. 2018 (bert), Sanh et al. 2019 (distilbert), Liu et al. 2019
(roberta), Clark et al. 2020 (electra), Lan et al. 2019 (albert).
"""

import math

import numpy as np

FLOAT_MIN = float(np.finfo(np.float32).min)
ERF = np.frompyfunc(math.erf, 1, 1)

PARTS = {  # of a layer: query, key, value, output, norm, inner, outer, norm
    "bert": (
        "encoder.layer.{}.",
        *("attention.self." + part for part in ("query", "key", "value")),
        *("attention.output.dense", "attention.output.LayerNorm"),
        *("intermediate.dense", "output.dense", "output.LayerNorm"),
    ),
    "distilbert": (
        "transformer.layer.{}.",
        *("attention." + part for part in ("q_lin", "k_lin", "v_lin", "out_lin")),
        *("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"),
    ),
    "albert": (
        "encoder.albert_layer_groups.0.albert_layers.0.",
        *("attention." + part for part in ("query", "key", "value", "dense", "LayerNorm")),
        *("ffn", "ffn_output", "full_layer_layer_norm"),
    ),
}
PARTS["roberta"] = PARTS["electra"] = PARTS["bert"]


def gelu(x):
    return x / 2 * (1 + ERF(x / math.sqrt(2)).astype(np.float64))


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


class Model:
    """One checkpoint. `family` is a key of PARTS, `config` what config.json says, `weights` tensors by name."""

    def __init__(self, family, config, weights):
        self.family, self.config = family, config
        self.weights = {name: array.astype(np.float64) for name, array in weights.items()}
        distil = family == "distilbert"
        self.layers = config["n_layers" if distil else "num_hidden_layers"]
        self.heads = config["n_heads" if distil else "num_attention_heads"]
        self.activation = ACTIVATIONS[config["activation" if distil else "hidden_act"]]
        self.epsilon = 1e-12 if distil else config["layer_norm_eps"]

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.epsilon)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def encode(self, ids, mask, token_types):
        """[b, s] each -> [b, s, h]"""
        places = np.arange(ids.shape[1])[None]
        if self.family == "roberta":  # counted over tokens alone, from the padding token's number on
            padding = self.config["pad_token_id"]
            tokens = (ids != padding).astype(np.int64)
            places = np.cumsum(tokens, 1) * tokens + padding
        x = self.weights["embeddings.word_embeddings.weight"][ids]
        x = x + self.weights["embeddings.position_embeddings.weight"][places]
        if self.family != "distilbert":
            x = x + self.weights["embeddings.token_type_embeddings.weight"][token_types]
        x = self.norm("embeddings.LayerNorm", x)
        for project in ("embeddings_project", "encoder.embedding_hidden_mapping_in"):
            if f"{project}.weight" in self.weights:
                x = self.linear(project, x)
        bias = np.where(mask == 0, FLOAT_MIN, 0.0)[:, None, None]
        for layer in range(self.layers):
            x = self.layer(layer, x, bias)
        return x

    def layer(self, layer, x, bias):
        stem, *parts = PARTS[self.family]
        query, key, value, output, norm, inner, outer, last = (stem.format(layer) + part for part in parts)
        b, s, h = x.shape

        def split(name):
            return self.linear(name, x).reshape(b, s, self.heads, h // self.heads).transpose(0, 2, 1, 3)

        scores = split(query) @ split(key).transpose(0, 1, 3, 2) / math.sqrt(h // self.heads) + bias
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores = scores / scores.sum(-1, keepdims=True)
        context = (scores @ split(value)).transpose(0, 2, 1, 3).reshape(b, s, h)
        x = self.norm(norm, self.linear(output, context) + x)
        return self.norm(last, self.linear(outer, self.activation(self.linear(inner, x))) + x)

    def pooler(self, x):
        return np.tanh(self.linear("pooler" if self.family == "albert" else "pooler.dense", x[:, 0]))

    def words(self, x):
        """Logits over the vocabulary: a transformation, then the embeddings of words."""
        dense, norm, activation, bias = {
            "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", None, "cls.predictions"),
            "distilbert": ("vocab_transform", "vocab_layer_norm", None, "vocab_projector"),
            "roberta": ("lm_head.dense", "lm_head.layer_norm", gelu, "lm_head"),
            "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", gelu, "generator_lm_head"),
            "albert": ("predictions.dense", "predictions.LayerNorm", None, "predictions"),
        }[self.family]
        x = self.norm(norm, (activation or self.activation)(self.linear(dense, x)))
        return x @ self.weights["embeddings.word_embeddings.weight"].T + self.weights[f"{bias}.bias"]

    def sequence(self, x):
        """Logits of the whole sequence."""
        if self.family in ("bert", "albert"):
            return self.linear("classifier", self.pooler(x))
        if self.family == "distilbert":
            return self.linear("classifier", np.maximum(self.linear("pre_classifier", x[:, 0]), 0))
        activation = np.tanh if self.family == "roberta" else gelu
        return self.linear("classifier.out_proj", activation(self.linear("classifier.dense", x[:, 0])))

    def run(self, head, inputs):
        """The outputs of a class, by the names that `transformers` gives them. `head` is the end of its name."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        x = self.encode(ids, mask, inputs.get("token_type_ids", np.zeros_like(ids)))
        if head == "ForSequenceClassification":
            return {"logits": self.sequence(x)}
        if head == "ForTokenClassification":
            return {"logits": self.linear("classifier", x)}
        if head == "ForQuestionAnswering":
            logits = self.linear("qa_outputs", x)
            return {"start_logits": logits[..., 0], "end_logits": logits[..., 1]}
        if head == "ForMaskedLM":
            return {"logits": self.words(x)}
        if head == "ForNextSentencePrediction":
            return {"logits": self.linear("cls.seq_relationship", self.pooler(x))}
        if head == "ForPreTraining" and self.family == "electra":
            inner = self.activation(self.linear("discriminator_predictions.dense", x))
            return {"logits": self.linear("discriminator_predictions.dense_prediction", inner)[..., 0]}
        if head == "ForPreTraining":
            name, output = {
                "bert": ("cls.seq_relationship", "seq_relationship_logits"),
                "albert": ("sop_classifier.classifier", "sop_logits"),
            }[self.family]
            return {"prediction_logits": self.words(x), output: self.linear(name, self.pooler(x))}
        outputs = {"last_hidden_state": x}
        if any(name.startswith("pooler.") for name in self.weights):
            outputs["pooler_output"] = self.pooler(x)
        return outputs
