//! Fixing dynamic dimensions: what a model declares, what the user gives, and the static types that follow.
//!
//! A model's inputs may have dimensions that are symbols (`batch`) or unknown. The user fixes them by input
//! (`input_ids=1x128`) or by symbol (`batch=1`); both come as [`ShapeBindings`]. A symbol has one value in the whole
//! model, so binding one input binds the symbols it shares with others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aic_ir::types::{DType, ShapeError, TensorType};

/// A dimension that a model declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(u64),
    /// A symbol.
    Symbol(String),
    /// Neither number nor symbol.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// An input as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputInfo {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions; `None` when not even their number is declared.
    pub dims: Option<Vec<Dim>>,
}

impl fmt::Display for InputInfo {
    /// `input_ids: i64[batch, 128]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.dtype)?;
        let Some(dims) = &self.dims else { return f.write_str("[...]") };
        write!(f, "[{}]", listed(dims.iter().map(Dim::to_string), ", "))
    }
}

/// Shapes that the user gives, each for an input or for a symbol. Which one a name means is known only beside a
/// model: inputs go first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShapeBindings(BTreeMap<String, Vec<u64>>);

impl ShapeBindings {
    /// No bindings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is bound.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Binds an input or a symbol (which takes one dimension).
    ///
    /// # Errors
    /// When the name is bound already to something else.
    pub fn bind(&mut self, name: impl Into<String>, dims: impl Into<Vec<u64>>) -> Result<(), ShapesError> {
        let (name, dims) = (name.into(), dims.into());
        match self.0.get(&name) {
            Some(old) if *old != dims => Err(ShapesError::BoundTwice(name)),
            _ => {
                self.0.insert(name, dims);
                Ok(())
            }
        }
    }

    /// Binds from the text of a flag: `batch=1`, `input_ids=1x128`, `scale=` for a scalar.
    ///
    /// # Errors
    /// When the text has another form, or the name is bound already to something else.
    pub fn parse(&mut self, flag: &str) -> Result<(), ShapesError> {
        let bad = || ShapesError::BadFlag(flag.to_owned());
        // Input names may hold `=`; dimensions cannot.
        let (name, dims) = flag.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
        let dims = match dims {
            "" => Vec::new(),
            dims => dims.split('x').map(|d| d.parse().map_err(|_| bad())).collect::<Result<_, _>>()?,
        };
        self.bind(name, dims)
    }
}

/// Why shapes do not fit a model, or leave dimensions open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapesError {
    /// The text of a flag is not of the form `NAME=DIMS`.
    #[error("shape {0:?} is not understood: write `input_ids=1x128` for an input, or `batch=1` for a symbol")]
    BadFlag(String),
    /// One name is bound to two different shapes.
    #[error("two different shapes are given for `{0}`")]
    BoundTwice(String),
    /// A bound name is neither an input nor a symbol of the model.
    #[error("the model has no input and no symbol `{name}`; it has {has}")]
    UnknownName {
        /// The bound name.
        name: String,
        /// What the model has, in words.
        has: String,
    },
    /// A symbol is bound to a shape that is not one dimension.
    #[error("`{0}` is a symbol, so it takes one number: `--shape {0}=1`")]
    SymbolRank(String),
    /// A bound shape contradicts what the model declares.
    #[error("shape {given:?} is given for input `{input}`, which is declared as {declared}")]
    Mismatch {
        /// Name of the input.
        input: String,
        /// Shape given for it.
        given: Vec<u64>,
        /// What the model declares.
        declared: String,
    },
    /// A symbol gets two values.
    #[error("symbol `{symbol}` would be {first} by one shape and {second} by another")]
    SymbolConflict {
        /// The symbol.
        symbol: String,
        /// Its value so far.
        first: u64,
        /// The contradicting value.
        second: u64,
    },
    /// Dimensions stay open.
    #[error("dynamic dimensions must be fixed at compile time: {inputs}; for example `{flags}`")]
    Unbound {
        /// The inputs concerned, with their declared shapes.
        inputs: String,
        /// Flags that would fix them.
        flags: String,
    },
    /// A bound shape is too large.
    #[error("input `{input}`: {error}")]
    Limit {
        /// Name of the input.
        input: String,
        /// Which limit it passes.
        error: ShapeError,
    },
}

/// Fixes every dimension of the inputs. `defaults` are values of symbols that hold where the user says nothing.
pub(crate) fn resolve(
    inputs: &[InputInfo],
    bindings: &ShapeBindings,
    defaults: &[(&str, u64)],
) -> Result<Vec<TensorType>, ShapesError> {
    let mut symbols: BTreeMap<&str, u64> = BTreeMap::new();
    let set = |symbols: &mut BTreeMap<_, _>, symbol, value| match symbols.insert(symbol, value) {
        Some(first) if first != value => {
            Err(ShapesError::SymbolConflict { symbol: String::from(symbol), first, second: value })
        }
        _ => Ok(()),
    };
    let by_name: BTreeMap<&str, &InputInfo> = inputs.iter().map(|i| (i.name.as_str(), i)).collect();
    let declared: BTreeMap<&str, ()> = inputs.iter().flat_map(symbols_of).map(|s| (s, ())).collect();
    for (name, given) in &bindings.0 {
        if let Some(input) = by_name.get(name.as_str()) {
            let Some(dims) = &input.dims else { continue };
            let fits = dims.len() == given.len()
                && dims.iter().zip(given).all(|(dim, given)| !matches!(dim, Dim::Fixed(n) if n != given));
            if !fits {
                let (input, declared) = (input.name.clone(), input.to_string());
                return Err(ShapesError::Mismatch { input, given: given.clone(), declared });
            }
            for (dim, &value) in dims.iter().zip(given) {
                if let Dim::Symbol(symbol) = dim {
                    set(&mut symbols, symbol.as_str(), value)?;
                }
            }
        } else if let Some((&symbol, ())) = declared.get_key_value(name.as_str()) {
            let &[value] = given.as_slice() else { return Err(ShapesError::SymbolRank(name.clone())) };
            set(&mut symbols, symbol, value)?;
        } else {
            return Err(ShapesError::UnknownName { name: name.clone(), has: names_in_words(inputs, &declared) });
        }
    }
    for &(symbol, value) in defaults {
        symbols.entry(symbol).or_insert(value);
    }

    let mut types = Vec::with_capacity(inputs.len());
    let mut open = Vec::new();
    for input in inputs {
        let given = bindings.0.get(&input.name);
        let shape: Option<Vec<u64>> = match &input.dims {
            None => given.cloned(),
            Some(dims) => dims
                .iter()
                .enumerate()
                .map(|(i, dim)| match dim {
                    Dim::Fixed(n) => Some(*n),
                    Dim::Symbol(symbol) => symbols.get(symbol.as_str()).copied(),
                    Dim::Unknown => given.and_then(|g| g.get(i)).copied(),
                })
                .collect(),
        };
        match shape {
            None => open.push(input),
            Some(shape) => types.push(
                TensorType::new(input.dtype, shape)
                    .map_err(|error| ShapesError::Limit { input: input.name.clone(), error })?,
            ),
        }
    }
    if open.is_empty() { Ok(types) } else { Err(unbound(&open, &symbols)) }
}

fn symbols_of(input: &InputInfo) -> impl Iterator<Item = &str> {
    input.dims.iter().flatten().filter_map(|dim| match dim {
        Dim::Symbol(symbol) => Some(symbol.as_str()),
        Dim::Fixed(_) | Dim::Unknown => None,
    })
}

fn names_in_words(inputs: &[InputInfo], symbols: &BTreeMap<&str, ()>) -> String {
    let inputs = listed(inputs.iter().map(|i| format!("`{}`", i.name)), ", ");
    match symbols.is_empty() {
        true => format!("the inputs {inputs} and no symbols"),
        false => {
            format!("the inputs {inputs} and the symbols {}", listed(symbols.keys().map(|s| format!("`{s}`")), ", "))
        }
    }
}

/// Joins the first of some texts, and says how many there are if that is not all: a message is for people.
fn listed(texts: impl Iterator<Item = String>, between: &str) -> String {
    const SHOWN: usize = 16;
    let mut texts = texts.peekable();
    let shown: Vec<String> = texts.by_ref().take(SHOWN).collect();
    let more = texts.count();
    let shown = shown.join(between);
    if more == 0 { shown } else { format!("{shown}{between}… ({more} more)") }
}

/// The error for inputs with open dimensions: one flag per open symbol, and one per input where symbols do not help.
fn unbound(open: &[&InputInfo], symbols: &BTreeMap<&str, u64>) -> ShapesError {
    let mut flags: Vec<String> = Vec::new();
    let mut flagged: BTreeSet<&str> = BTreeSet::new();
    for input in open {
        let by_symbol = input.dims.as_ref().is_some_and(|dims| !dims.contains(&Dim::Unknown));
        if by_symbol {
            for symbol in symbols_of(input).filter(|s| !symbols.contains_key(s)) {
                if flagged.insert(symbol) {
                    flags.push(format!("--shape {symbol}={}", example_size(symbol)));
                }
            }
        } else {
            let sizes = input.dims.iter().flatten().map(|dim| match dim {
                Dim::Fixed(n) => n.to_string(),
                Dim::Symbol(_) | Dim::Unknown => "1".to_owned(),
            });
            let sizes: Vec<String> = sizes.collect();
            let sizes = if sizes.is_empty() { "1x128".to_owned() } else { sizes.join("x") };
            flags.push(format!("--shape {}={sizes}", input.name));
        }
    }
    let inputs = open.iter().map(|i| format!("input `{}` is {}[{}]", i.name, i.dtype, dims_text(i)));
    ShapesError::Unbound { inputs: listed(inputs, ", "), flags: listed(flags.into_iter(), " ") }
}

/// A size that is likely for a symbol of that name.
fn example_size(symbol: &str) -> u64 {
    if symbol.contains("seq") || symbol.contains("len") { 128 } else { 1 }
}

fn dims_text(input: &InputInfo) -> String {
    match &input.dims {
        None => "...".to_owned(),
        Some(dims) => listed(dims.iter().map(Dim::to_string), ", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, dims: &[Dim]) -> InputInfo {
        InputInfo { name: name.into(), dtype: DType::I64, dims: Some(dims.to_vec()) }
    }

    fn model() -> Vec<InputInfo> {
        let symbol = |s: &str| Dim::Symbol(s.into());
        vec![input("ids", &[symbol("batch"), symbol("seq")]), input("mask", &[symbol("batch"), symbol("seq")])]
    }

    fn shapes(flags: &[&str], inputs: &[InputInfo]) -> Result<Vec<Vec<u64>>, ShapesError> {
        let mut bindings = ShapeBindings::new();
        for flag in flags {
            bindings.parse(flag)?;
        }
        Ok(resolve(inputs, &bindings, &[])?.iter().map(|t| t.shape().to_vec()).collect())
    }

    #[test]
    fn binding_one_input_binds_the_symbols_of_the_others() {
        assert_eq!(shapes(&["ids=1x128"], &model()), Ok(vec![vec![1, 128]; 2]));
        assert_eq!(shapes(&["batch=2", "seq=7"], &model()), Ok(vec![vec![2, 7]; 2]));
    }

    #[test]
    fn errors_name_inputs_symbols_and_flags() {
        let text = |flags: &[&str], inputs: &[InputInfo]| shapes(flags, inputs).expect_err("refused").to_string();
        let open = text(&["batch=1"], &model());
        assert!(open.contains("`ids` is i64[batch, seq]") && open.ends_with("`--shape seq=128`"), "{open}");
        let unknown = text(&["sequence=1"], &model());
        assert!(unknown.contains("`ids`, `mask` and the symbols `batch`, `seq`"), "{unknown}");
        assert!(text(&["ids=1x2", "mask=1x3"], &model()).contains("symbol `seq` would be 2"));
        assert!(text(&["batch=1x2"], &model()).contains("one number"));
        let fixed = [input("x", &[Dim::Fixed(3), Dim::Unknown])];
        assert!(text(&["x=4x1"], &fixed).contains("declared as x: i64[3, ?]"));
        assert!(text(&[], &fixed).contains("--shape x=3x1"));
        assert_eq!(shapes(&["x=3x9"], &fixed), Ok(vec![vec![3, 9]]));
        assert!(text(&["x=99999999999999x99999999999"], &[input("x", &[Dim::Unknown, Dim::Unknown])]).contains("2^40"));
    }

    #[test]
    fn flags_of_another_form_are_refused() {
        for flag in ["", "x", "=1", "x=a", "x=1x", "x=-1", "x=1x99999999999999999999"] {
            assert_eq!(ShapeBindings::new().parse(flag), Err(ShapesError::BadFlag(flag.into())));
        }
        let mut bindings = ShapeBindings::new();
        assert_eq!(
            bindings.parse("x=1").and_then(|()| bindings.parse("x=2")),
            Err(ShapesError::BoundTwice("x".into()))
        );
    }
}
