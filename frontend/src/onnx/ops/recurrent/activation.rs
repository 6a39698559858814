//! The activation functions of recurrent layers, which a layer names in its attributes.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};

use crate::builder::{Builder, Reason};
use crate::onnx::context::NodeContext;

/// A function of one number; parameters are its `alpha` and `beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    Sigmoid,
    Tanh,
    Relu,
    Softsign,
    Softplus,
    /// `alpha x + beta`.
    Affine(f64, f64),
    /// `x < 0 ? alpha x : x`.
    LeakyRelu(f64),
    /// `x < alpha ? 0 : x`.
    ThresholdedRelu(f64),
    /// `alpha tanh(beta x)`.
    ScaledTanh(f64, f64),
    /// `min(max(alpha x + beta, 0), 1)`.
    HardSigmoid(f64, f64),
    /// `x < 0 ? alpha (e^x - 1) : x`.
    Elu(f64),
}

/// Reads the functions of a layer: for each direction those of `defaults`, or what the attributes say. Parameters are
/// given in the order of the functions that take them.
pub(super) fn read(c: &NodeContext<'_>, defaults: &[&str], directions: usize) -> Result<Vec<Activation>, Reason> {
    let names: Vec<&str> = match c.texts("activations")? {
        Some(names) => names,
        None => defaults.repeat(directions),
    };
    if names.len() != defaults.len() * directions {
        let (count, given) = (defaults.len() * directions, names.len());
        return Err(format!("takes {count} activations, but {given} are given").into());
    }
    let mut alphas = c.floats_attribute("activation_alpha")?.unwrap_or_default().iter();
    let mut betas = c.floats_attribute("activation_beta")?.unwrap_or_default().iter();
    let mut alpha = || alphas.next().map(|&v| f64::from(v));
    let mut beta = || betas.next().map(|&v| f64::from(v));
    let mut activations = Vec::with_capacity(names.len());
    for name in names {
        // Runtimes take the names in any case.
        activations.push(match name.to_ascii_lowercase().as_str() {
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            "relu" => Activation::Relu,
            "softsign" => Activation::Softsign,
            "softplus" => Activation::Softplus,
            "leakyrelu" => Activation::LeakyRelu(alpha().unwrap_or(0.01)),
            "hardsigmoid" => Activation::HardSigmoid(alpha().unwrap_or(0.2), beta().unwrap_or(0.5)),
            "elu" => Activation::Elu(alpha().unwrap_or(1.0)),
            "affine" => Activation::Affine(given(alpha(), name)?, given(beta(), name)?),
            "thresholdedrelu" => Activation::ThresholdedRelu(given(alpha(), name)?),
            "scaledtanh" => Activation::ScaledTanh(given(alpha(), name)?, given(beta(), name)?),
            _ => return Err(format!("activation {name:?} is not supported").into()),
        });
    }
    Ok(activations)
}

/// A parameter without a default that all runtimes share.
fn given(parameter: Option<f64>, name: &str) -> Result<f64, Reason> {
    parameter
        .ok_or_else(|| format!("activation {name} needs its parameters, in activation_alpha or activation_beta").into())
}

impl Activation {
    pub fn apply(self, c: &mut Builder, x: Value) -> Result<Value, Reason> {
        match self {
            Activation::Sigmoid => c.unary(UnaryOp::Sigmoid, x),
            Activation::Tanh => c.unary(UnaryOp::Tanh, x),
            Activation::Relu => c.binary_scalar(BinaryOp::Max, x, 0.0),
            Activation::Softsign => {
                let abs = c.unary(UnaryOp::Abs, x)?;
                let divisor = c.binary_scalar(BinaryOp::Add, abs, 1.0)?;
                c.binary(BinaryOp::Div, x, divisor)
            }
            Activation::Softplus => {
                let abs = c.unary(UnaryOp::Abs, x)?;
                let negative = c.unary(UnaryOp::Neg, abs)?;
                let exp = c.unary(UnaryOp::Exp, negative)?;
                let one_plus = c.binary_scalar(BinaryOp::Add, exp, 1.0)?;
                let log = c.unary(UnaryOp::Log, one_plus)?;
                let high = c.binary_scalar(BinaryOp::Max, x, 0.0)?;
                c.binary(BinaryOp::Add, high, log)
            }
            Activation::Affine(alpha, beta) => affine(c, x, alpha, beta),
            Activation::LeakyRelu(alpha) => {
                let below = c.binary_scalar(BinaryOp::Mul, x, alpha)?;
                below_or_same(c, x, 0.0, below)
            }
            Activation::ThresholdedRelu(alpha) => {
                let zero = c.scalar(c.dtype(x), 0.0)?;
                below_or_same(c, x, alpha, zero)
            }
            Activation::ScaledTanh(alpha, beta) => {
                let scaled = c.binary_scalar(BinaryOp::Mul, x, beta)?;
                let tanh = c.unary(UnaryOp::Tanh, scaled)?;
                c.binary_scalar(BinaryOp::Mul, tanh, alpha)
            }
            Activation::HardSigmoid(alpha, beta) => {
                let line = affine(c, x, alpha, beta)?;
                let low = c.binary_scalar(BinaryOp::Min, line, 1.0)?;
                c.binary_scalar(BinaryOp::Max, low, 0.0)
            }
            Activation::Elu(alpha) => {
                let low = c.binary_scalar(BinaryOp::Min, x, 0.0)?;
                let exp = c.unary(UnaryOp::Exp, low)?;
                let shifted = c.binary_scalar(BinaryOp::Sub, exp, 1.0)?;
                let below = c.binary_scalar(BinaryOp::Mul, shifted, alpha)?;
                below_or_same(c, x, 0.0, below)
            }
        }
    }
}

fn affine(c: &mut Builder, x: Value, alpha: f64, beta: f64) -> Result<Value, Reason> {
    let scaled = c.binary_scalar(BinaryOp::Mul, x, alpha)?;
    c.binary_scalar(BinaryOp::Add, scaled, beta)
}

/// `x < limit ? below : x`.
fn below_or_same(c: &mut Builder, x: Value, limit: f64, below: Value) -> Result<Value, Reason> {
    let is_below = c.binary_scalar(BinaryOp::Lt, x, limit)?;
    c.emit(Op::Select, &[is_below, below, x])
}
