//! The description of a model's C interface: what the header declares and what the code checks.
//!
//! Everything that a caller's compiled code depends on goes into [`Interface::hash`], which is part of the names of the
//! symbols: code that was compiled against another interface does not link.

use aic_ir::plan::ALIGN_BYTES;
use aic_ir::types::{DType, TensorType};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::names::{self, Names};

/// Version of the C interface that this backend writes: `AIC_ABI`.
pub const ABI_VERSION: u32 = 1;

/// Largest rank in `aic_tensor_info`.
pub const INFO_MAX_RANK: usize = aic_ir::types::MAX_RANK;

/// Bytes of the name in `aic_tensor_info`, with its zero.
pub const INFO_NAME_BYTES: usize = 64;

/// An input or output of a program, as the model names it.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSpec {
    /// Name in the model.
    pub name: String,
    /// Element type and shape.
    pub ty: TensorType,
    /// Scale and zero point, where the values are quantized.
    pub quantization: Option<(f32, i32)>,
}

/// What the interface of a model is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The model's name; becomes the prefix of all C names.
    pub name: String,
    /// The program's inputs, in order.
    pub inputs: Vec<TensorSpec>,
    /// The program's outputs, in order.
    pub outputs: Vec<TensorSpec>,
    /// Pairs of names `(input, output)`: the output of a run is the input of the next.
    pub states: Vec<(String, String)>,
    /// Whether the weights lie outside the code, in a block that the caller passes.
    pub external_weights: bool,
    /// SHA-256 of the model, 64 hexadecimal digits.
    pub model_sha256: String,
}

/// Why a model cannot have the interface asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceError {
    /// A state names no input, or no output.
    #[error("state `{input}={output}`: the model has no {side} of that name")]
    NoSuchTensor {
        /// Name of the input.
        input: String,
        /// Name of the output.
        output: String,
        /// `input` or `output`.
        side: &'static str,
    },
    /// A tensor stands in two states.
    #[error("state `{input}={output}`: a tensor can be in one state only")]
    PairedTwice {
        /// Name of the input.
        input: String,
        /// Name of the output.
        output: String,
    },
    /// The two sides of a state differ.
    #[error("state `{input}={output}`: the input is {input_type} but the output is {output_type}")]
    StateTypes {
        /// Name of the input.
        input: String,
        /// Name of the output.
        output: String,
        /// Type of the input.
        input_type: String,
        /// Type of the output.
        output_type: String,
    },
    /// The model's hash is not 64 hexadecimal digits.
    #[error("`{0}` is no SHA-256")]
    Hash(String),
    /// The compiled program and the description do not belong together.
    #[error("the interface describes {described}, but the program has {actual}")]
    Mismatch {
        /// What is described.
        described: String,
        /// What the program has.
        actual: String,
    },
    /// Blocks that pass 64 bits together.
    #[error("the memory of the model passes 2^62 bytes")]
    TooLarge,
}

/// A tensor of the interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorInfo {
    /// Name in the model.
    pub name: String,
    /// Part of the macros' names: `AUDIO` in `KWS_INPUT_AUDIO`.
    pub ident: String,
    /// Element type's name, as in the text forms.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<u64>,
    /// Size in bytes.
    pub bytes: u64,
    /// Required alignment in bytes: that of the element.
    pub align: u64,
    /// `value = scale * (stored - zero_point)`; 1 where nothing is quantized.
    pub scale: f32,
    /// See `scale`; 0 where nothing is quantized.
    pub zero_point: i32,
}

impl TensorInfo {
    fn new(spec: &TensorSpec, ident: String) -> Self {
        let (scale, zero_point) = spec.quantization.unwrap_or((1.0, 0));
        Self {
            name: spec.name.clone(),
            ident,
            dtype: spec.ty.dtype().name().to_owned(),
            shape: spec.ty.shape().to_vec(),
            bytes: spec.ty.bytes(),
            align: spec.ty.dtype().bytes(),
            scale,
            zero_point,
        }
    }
}

/// An input that the code keeps from run to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Name of the program's input.
    pub input: String,
    /// Name of the program's output.
    pub output: String,
    /// Offset in the state block, and of the new value in the staging area at the end of the arena.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Position of the input among the program's inputs.
    pub input_index: usize,
    /// Position of the output among the program's outputs.
    pub output_index: usize,
}

/// Where the weights lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsMode {
    /// In the code's read-only data.
    Embedded,
    /// In a block that the caller passes.
    External,
}

/// The C interface of a compiled model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Version of the C interface.
    pub abi: u32,
    /// The model's name, as given.
    pub name: String,
    /// Prefix of C functions: the name made an identifier.
    pub ident: String,
    /// Inputs that the caller passes.
    pub inputs: Vec<TensorInfo>,
    /// Outputs that the caller passes.
    pub outputs: Vec<TensorInfo>,
    /// What is kept from run to run.
    pub states: Vec<State>,
    /// Size of the arena in bytes, with the staging area of states.
    pub arena_bytes: u64,
    /// Where the staging area begins in the arena.
    pub staging_offset: u64,
    /// Size of the state block in bytes.
    pub state_bytes: u64,
    /// Bound of the stack that any function of the interface takes, in bytes.
    pub stack_bytes: u64,
    /// Where the weights lie.
    pub weights: WeightsMode,
    /// Size of the weights in bytes, without the header of an external block.
    pub weights_bytes: u64,
    /// SHA-256 of the model, in hexadecimal.
    pub model_sha256: String,
}

impl Interface {
    /// Lays out the interface of a program with an arena and weights of these sizes. The bound of the stack is not known
    /// yet and is 0.
    ///
    /// # Errors
    /// When states do not pair up, or sizes overflow.
    pub fn new(spec: &Spec, arena_bytes: u64, weights_bytes: u64) -> Result<Self, InterfaceError> {
        if spec.model_sha256.len() != 64 || !spec.model_sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(InterfaceError::Hash(spec.model_sha256.clone()));
        }
        let (states, state_bytes) = pair_states(spec)?;
        let is_state = |states: &[State], side: fn(&State) -> usize, i: usize| states.iter().any(|s| side(s) == i);
        let mut input_names = Names::default();
        let mut output_names = Names::default();
        let inputs = spec.inputs.iter().enumerate().filter(|(i, _)| !is_state(&states, |s| s.input_index, *i));
        let inputs = inputs.map(|(_, t)| TensorInfo::new(t, input_names.tensor(&t.name))).collect();
        let outputs = spec.outputs.iter().enumerate().filter(|(i, _)| !is_state(&states, |s| s.output_index, *i));
        let outputs = outputs.map(|(_, t)| TensorInfo::new(t, output_names.tensor(&t.name))).collect();
        let staging_offset = arena_bytes.checked_next_multiple_of(ALIGN_BYTES).ok_or(InterfaceError::TooLarge)?;
        let staged = staging_offset.checked_add(state_bytes).filter(|&b| b <= 1 << 62);
        let staged = staged.ok_or(InterfaceError::TooLarge)?;
        Ok(Self {
            abi: ABI_VERSION,
            name: spec.name.clone(),
            ident: names::model(&spec.name),
            inputs,
            outputs,
            arena_bytes: if states.is_empty() { arena_bytes } else { staged },
            states,
            staging_offset,
            state_bytes,
            stack_bytes: 0,
            weights: if spec.external_weights { WeightsMode::External } else { WeightsMode::Embedded },
            weights_bytes,
            model_sha256: spec.model_sha256.to_ascii_lowercase(),
        })
    }

    /// Whether the short form `NAME_run` exists: a run needs nothing but inputs, outputs and an arena.
    pub fn has_run(&self) -> bool {
        self.states.is_empty() && self.weights == WeightsMode::Embedded
    }

    /// Hash of what callers depend on: eight hexadecimal digits. Retraining a model keeps it; any change of a name, type,
    /// size or alignment changes it.
    pub fn hash(&self) -> String {
        let mut text = format!("aic {} {}\n", self.abi, self.ident);
        for (side, tensors) in [("input", &self.inputs), ("output", &self.outputs)] {
            for t in tensors {
                let TensorInfo { name, ident, dtype, shape, bytes, align, scale, zero_point } = t;
                let scale = scale.to_bits();
                text += &format!("{side} {name:?} {ident} {dtype} {shape:?} {bytes} {align} {scale:x} {zero_point}\n");
            }
        }
        let Self { arena_bytes, state_bytes, stack_bytes, weights, .. } = self;
        text += &format!("arena {arena_bytes} state {state_bytes} stack {stack_bytes} weights {weights:?}");
        if *weights == WeightsMode::External {
            text += &format!(" {}", self.weights_bytes);
        }
        hex(&Sha256::digest(text.as_bytes())[..4])
    }

    /// A function's or table's linker name: `kws_run_5f3c9a10`.
    pub fn symbol(&self, what: &str) -> String {
        format!("{}_{what}_{}", self.ident, self.hash())
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn pair_states(spec: &Spec) -> Result<(Vec<State>, u64), InterfaceError> {
    let mut states: Vec<State> = Vec::new();
    let mut offset = 0u64;
    for (input, output) in &spec.states {
        let (input, output) = (input.clone(), output.clone());
        let find = |tensors: &[TensorSpec], name: &str| tensors.iter().position(|t| t.name == name);
        let no_such = |side| InterfaceError::NoSuchTensor { input: input.clone(), output: output.clone(), side };
        let input_index = find(&spec.inputs, &input).ok_or_else(|| no_such("input"))?;
        let output_index = find(&spec.outputs, &output).ok_or_else(|| no_such("output"))?;
        if states.iter().any(|s| s.input_index == input_index || s.output_index == output_index) {
            return Err(InterfaceError::PairedTwice { input, output });
        }
        let (from, to) = (&spec.inputs[input_index].ty, &spec.outputs[output_index].ty);
        if from != to {
            let (input_type, output_type) = (from.to_string(), to.to_string());
            return Err(InterfaceError::StateTypes { input, output, input_type, output_type });
        }
        let bytes = from.bytes();
        states.push(State { input, output, offset, bytes, input_index, output_index });
        let end = offset.checked_add(bytes).and_then(|b| b.checked_next_multiple_of(ALIGN_BYTES));
        offset = end.ok_or(InterfaceError::TooLarge)?;
    }
    Ok((states, offset))
}

/// Number of an element type in `aic_dtype`; numbers never change their meaning.
pub fn dtype_code(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 1,
        DType::BF16 => 2,
        DType::F32 => 3,
        DType::F64 => 4,
        DType::I8 => 5,
        DType::I16 => 6,
        DType::I32 => 7,
        DType::I64 => 8,
        DType::U8 => 9,
        DType::U16 => 10,
        DType::U32 => 11,
        DType::U64 => 12,
        DType::Bool => 13,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A specification with inputs and outputs of these names and shapes, all `f32`.
    pub fn spec(name: &str, inputs: &[(&str, &[u64])], outputs: &[(&str, &[u64])]) -> Spec {
        let tensors = |list: &[(&str, &[u64])]| {
            let tensor = |(name, shape): &(&str, &[u64])| TensorSpec {
                name: (*name).to_owned(),
                ty: TensorType::new(DType::F32, shape.to_vec()).unwrap(),
                quantization: None,
            };
            list.iter().map(tensor).collect()
        };
        Spec {
            name: name.to_owned(),
            inputs: tensors(inputs),
            outputs: tensors(outputs),
            states: Vec::new(),
            external_weights: false,
            model_sha256: "0".repeat(64),
        }
    }

    #[test]
    fn hash_follows_what_callers_depend_on() {
        let base = spec("kws", &[("audio", &[1, 16])], &[("scores", &[1, 4])]);
        let hash = |spec: &Spec| Interface::new(spec, 64, 64).unwrap().hash();
        let same = Spec { model_sha256: "f".repeat(64), ..base.clone() };
        assert_eq!(hash(&base), hash(&same));
        assert_eq!(hash(&base).len(), 8);
        let mut others = vec![base.clone(); 6];
        others[0].name = "vad".into();
        others[1].inputs[0].name = "sound".into();
        others[2].inputs[0].ty = TensorType::new(DType::F32, [16, 1]).unwrap();
        others[3].outputs[0].quantization = Some((0.5, 3));
        others[4].external_weights = true;
        others[5].inputs.push(base.inputs[0].clone());
        for other in others {
            assert_ne!(hash(&base), hash(&other), "{other:?}");
        }
        assert_ne!(hash(&base), Interface::new(&base, 128, 64).unwrap().hash());
    }

    #[test]
    fn states_leave_the_lists_and_take_memory() {
        let mut s =
            spec("lstm", &[("h", &[3]), ("x", &[4]), ("c", &[20])], &[("y", &[4]), ("hn", &[3]), ("cn", &[20])]);
        s.states = vec![("h".into(), "hn".into()), ("c".into(), "cn".into())];
        let i = Interface::new(&s, 100, 0).unwrap();
        assert_eq!(i.inputs.iter().map(|t| &t.name[..]).collect::<Vec<_>>(), ["x"]);
        assert_eq!(i.outputs.iter().map(|t| &t.name[..]).collect::<Vec<_>>(), ["y"]);
        assert_eq!((i.state_bytes, i.staging_offset, i.arena_bytes), (192, 128, 320));
        assert_eq!((i.states[1].offset, i.states[1].input_index, i.states[1].output_index), (64, 2, 2));
        assert!(!i.has_run());
    }

    #[test]
    fn impossible_states_are_refused() {
        let base = spec("m", &[("h", &[3]), ("x", &[4])], &[("hn", &[3]), ("y", &[3])]);
        let with = |states: &[(&str, &str)]| {
            let states = states.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            Interface::new(&Spec { states, ..base.clone() }, 0, 0).map(|_| ())
        };
        assert_eq!(with(&[("h", "hn")]), Ok(()));
        assert!(matches!(with(&[("q", "hn")]), Err(InterfaceError::NoSuchTensor { side: "input", .. })));
        assert!(matches!(with(&[("h", "q")]), Err(InterfaceError::NoSuchTensor { side: "output", .. })));
        assert!(matches!(with(&[("x", "hn")]), Err(InterfaceError::StateTypes { .. })));
        assert!(matches!(with(&[("h", "hn"), ("h", "y")]), Err(InterfaceError::PairedTwice { .. })));
        assert!(Interface::new(&Spec { model_sha256: "5f".into(), ..base.clone() }, 0, 0).is_err());
        assert!(Interface::new(&Spec { states: vec![("h".into(), "hn".into())], ..base }, u64::MAX - 63, 0).is_err());
    }
}
