//! The activation functions of recurrent layers, which a layer names in its attributes.

use aic_ir::graph::{BinaryOp, Op, UnaryOp, Value};

use crate::builder::{Builder, Reason};
use crate::onnx::context::NodeContext;
use crate::onnx::ops::activation::{below_zero, hard_sigmoid, select_negative, softplus, softsign};

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
            Activation::Softsign => softsign(c, x),
            Activation::Softplus => softplus(c, x),
            Activation::Affine(alpha, beta) => affine(c, x, alpha, beta),
            Activation::LeakyRelu(alpha) => {
                let below = c.binary_scalar(BinaryOp::Mul, x, alpha)?;
                select_negative(c, x, below)
            }
            Activation::ThresholdedRelu(alpha) => {
                let zero = c.scalar(c.dtype(x), 0.0)?;
                let is_below = c.binary_scalar(BinaryOp::Lt, x, alpha)?;
                c.emit(Op::Select, &[is_below, zero, x])
            }
            Activation::ScaledTanh(alpha, beta) => {
                let scaled = c.binary_scalar(BinaryOp::Mul, x, beta)?;
                let tanh = c.unary(UnaryOp::Tanh, scaled)?;
                c.binary_scalar(BinaryOp::Mul, tanh, alpha)
            }
            Activation::HardSigmoid(alpha, beta) => hard_sigmoid(c, x, alpha, beta),
            Activation::Elu(alpha) => {
                let below = below_zero(c, x, alpha)?;
                select_negative(c, x, below)
            }
        }
    }
}

fn affine(c: &mut Builder, x: Value, alpha: f64, beta: f64) -> Result<Value, Reason> {
    let scaled = c.binary_scalar(BinaryOp::Mul, x, alpha)?;
    c.binary_scalar(BinaryOp::Add, scaled, beta)
}
