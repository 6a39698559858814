//! What a model declares about its inputs.

use aic_ir::types::{MAX_RANK, ShapeError};

use super::schema::{DimensionProto, ValueInfoProto};
use super::tensor::dtype;
use crate::builder::Reason;
use crate::shapes::{Dim, InputInfo};

/// Name, element type and dimensions of an input.
pub(super) fn input_info(input: &ValueInfoProto) -> Result<InputInfo, Reason> {
    let tensor = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).ok_or("is not a tensor")?;
    let dtype = dtype(tensor.elem_type).map_err(|dtype| format!("element type {dtype} is not supported"))?;
    let rank = tensor.shape.as_ref().map_or(0, |shape| shape.dim.len());
    if rank > MAX_RANK {
        return Err(ShapeError::RankTooHigh(rank).into());
    }
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim).collect());
    Ok(InputInfo { name: input.name.clone(), dtype, dims })
}

/// Negative numbers are written by some tools for unknown sizes; others, Paddle's exporter among them, call every unknown
/// size `?`, which makes them no more equal than sizes without a name.
fn dim(proto: &DimensionProto) -> Dim {
    match (proto.dim_value.map(u64::try_from), proto.dim_param.as_deref()) {
        (Some(Ok(size)), _) => Dim::Fixed(size),
        (_, Some(symbol)) if !symbol.is_empty() && symbol != "?" => Dim::Symbol(symbol.to_owned()),
        _ => Dim::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_are_no_symbols() {
        let named = |name: &str| dim(&DimensionProto { dim_value: None, dim_param: Some(name.to_owned()) });
        assert_eq!(named("?"), Dim::Unknown);
        assert_eq!(named(""), Dim::Unknown);
        assert_eq!(named("batch"), Dim::Symbol("batch".to_owned()));
        assert_eq!(dim(&DimensionProto { dim_value: Some(-1), dim_param: None }), Dim::Unknown);
    }
}
