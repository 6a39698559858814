"""Small random checkpoints of the classes of `transformers`, with the outputs that encoder_numpy.py computes for them.

The names and shapes are those that `save_pretrained` writes. Inputs have padding in the second of two rows, so that
masks and the positions of tokens matter.
"""

import numpy as np

from encoder_numpy import PARTS, Model

HIDDEN, EMBEDDING, INNER, HEADS, LAYERS, VOCABULARY, POSITIONS, LABELS = 24, 16, 40, 3, 2, 50, 20, 3
SEQ, KEPT = 12, (12, 7)

SEQUENCE, TOKEN, QUESTION, MASKED, PRE, NEXT = (
    "ForSequenceClassification ForTokenClassification ForQuestionAnswering ForMaskedLM ForPreTraining "
    "ForNextSentencePrediction"
).split()
HEAD_MODULES = set(
    "classifier cls discriminator_predictions generator_lm_head generator_predictions lm_head pre_classifier predictions "
    "qa_outputs sop_classifier vocab_layer_norm vocab_projector vocab_transform".split()
)

FAMILIES = {  # model_type: family, start of the classes' names, activation, ends of the classes' names
    "bert": ("bert", "Bert", "gelu", (SEQUENCE, TOKEN, QUESTION, MASKED, PRE, NEXT)),
    "distilbert": ("distilbert", "DistilBert", "gelu", (SEQUENCE, TOKEN, QUESTION, MASKED)),
    "roberta": ("roberta", "Roberta", "gelu", ("Model", SEQUENCE, QUESTION, MASKED)),
    "xlm-roberta": ("roberta", "XLMRoberta", "gelu_pytorch_tanh", (TOKEN,)),
    "camembert": ("roberta", "Camembert", "silu", (SEQUENCE,)),
    "electra": ("electra", "Electra", "relu", ("Model", SEQUENCE, MASKED, PRE)),
    "albert": ("albert", "Albert", "gelu_new", ("Model", SEQUENCE, TOKEN, MASKED, PRE)),
}
CLASSES = {
    start + end: (model_type, family, activation, end)
    for model_type, (family, start, activation, ends) in FAMILIES.items()
    for end in ends
}


def linear(name, columns, rows):
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name, size):
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def encoder_shapes(family):
    embedding = EMBEDDING if family in ("electra", "albert") else HIDDEN
    shapes = norm("embeddings.LayerNorm", embedding)
    rows = {"word": VOCABULARY, "position": POSITIONS, "token_type": 1 if family == "roberta" else 2}
    for table in ("word", "position") if family == "distilbert" else rows:
        shapes[f"embeddings.{table}_embeddings.weight"] = (rows[table], embedding)
    if family == "electra":
        shapes |= linear("embeddings_project", embedding, HIDDEN)
    if family == "albert":
        shapes |= linear("encoder.embedding_hidden_mapping_in", embedding, HIDDEN) | linear("pooler", HIDDEN, HIDDEN)
    if family in ("bert", "roberta"):
        shapes |= linear("pooler.dense", HIDDEN, HIDDEN)
    for layer in range(LAYERS):
        stem, *parts = PARTS[family]
        query, key, value, output, first, inner, outer, last = (stem.format(layer) + part for part in parts)
        for name in (query, key, value, output):
            shapes |= linear(name, HIDDEN, HIDDEN)
        shapes |= linear(inner, HIDDEN, INNER) | linear(outer, INNER, HIDDEN) | norm(first, HIDDEN) | norm(last, HIDDEN)
    return shapes


def words_shapes(family):
    """The head of a language model, without the matrix that it shares with the embeddings."""
    size = EMBEDDING if family in ("electra", "albert") else HIDDEN
    dense, layer_norm, bias = {
        "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),
        "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
        "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head"),
        "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"),
        "albert": ("predictions.dense", "predictions.LayerNorm", "predictions"),
    }[family]
    return linear(dense, HIDDEN, size) | norm(layer_norm, size) | {f"{bias}.bias": (VOCABULARY,)}


def head_shapes(family, end):
    if end == SEQUENCE:
        if family in ("bert", "albert"):
            return linear("classifier", HIDDEN, LABELS)
        if family == "distilbert":
            return linear("pre_classifier", HIDDEN, HIDDEN) | linear("classifier", HIDDEN, LABELS)
        return linear("classifier.dense", HIDDEN, HIDDEN) | linear("classifier.out_proj", HIDDEN, LABELS)
    if end == TOKEN:
        return linear("classifier", HIDDEN, LABELS)
    if end == QUESTION:
        return linear("qa_outputs", HIDDEN, 2)
    if end == MASKED:
        return words_shapes(family)
    if end == NEXT:
        return linear("cls.seq_relationship", HIDDEN, 2)
    if end == PRE and family == "electra":
        name = "discriminator_predictions.dense"
        return linear(name, HIDDEN, HIDDEN) | linear(f"{name}_prediction", HIDDEN, 1)
    if end == PRE:
        name = "cls.seq_relationship" if family == "bert" else "sop_classifier.classifier"
        return words_shapes(family) | linear(name, HIDDEN, 2)
    return {}


def configuration(model_type, family, activation, name):
    common = {
        "architectures": [name],
        "id2label": {str(label): f"LABEL_{label}" for label in range(2 if name.endswith(QUESTION) else LABELS)},
        "max_position_embeddings": POSITIONS,
        "model_type": model_type,
        "pad_token_id": 1 if family == "roberta" else 0,
        "vocab_size": VOCABULARY,
    }
    if family == "distilbert":
        return common | {"activation": activation, "dim": HIDDEN, "hidden_dim": INNER, "n_heads": HEADS, "n_layers": LAYERS}
    if family in ("electra", "albert"):
        common |= {"embedding_size": EMBEDDING}
    if family == "albert":
        common |= {"num_hidden_groups": 1, "inner_group_num": 1}
    return common | {
        "hidden_act": activation,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-5 if family == "roberta" else 1e-12,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "type_vocab_size": 1 if family == "roberta" else 2,
    }


def class_folder(name, random_tensors):
    """(prefix of the encoder's tensors, config.json, tensors by name, inputs, outputs) of one class."""
    model_type, family, activation, end = CLASSES[name]
    # From this seed on no row has so little variance that its norm loses more than the usual digits in binary32.
    rng = np.random.default_rng(125 + sorted(CLASSES).index(name))
    config = configuration(model_type, family, activation, name)
    weights = random_tensors(rng, encoder_shapes(family) | head_shapes(family, end))
    mask = (np.arange(SEQ) < np.array(KEPT)[:, None]).astype(np.int64)
    ids = np.where(mask == 0, config["pad_token_id"], rng.integers(2, VOCABULARY, mask.shape))
    inputs = {"input_ids": ids, "attention_mask": mask}
    if family in ("bert", "electra", "albert"):
        inputs["token_type_ids"] = rng.integers(0, 2, ids.shape)
    outputs = Model(family, config, weights).run(end, inputs)
    return f"{family}.", config, weights, inputs, {key: array.astype(np.float32) for key, array in outputs.items()}
