//! What the importer of one node sees: its operands, its attributes and the builder.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use aic_ir::graph::Value;
use aic_ir::types::{DType, MAX_RANK, Tensor};

use super::schema::{AttributeProto, NodeProto, attribute_type};
use super::sparse;
use super::tensor::{self, TensorError};
use crate::builder::{Builder, Reason};
use crate::files::Files;

/// Largest number of elements of an operand that is taken as a list of integers: pads have two for each dimension. Any
/// number of nodes may share one list, so a long one would be read, and quoted in errors, again and again. Only the
/// sizes of `Split` may be more, one for each of its results.
const MAX_LIST: usize = 2 * MAX_RANK;

/// The node that is imported and what it may use.
pub(super) struct NodeContext<'a> {
    pub builder: &'a mut Builder,
    pub node: &'a NodeProto,
    pub files: &'a dyn Files,
    /// Version of the standard operator set.
    pub opset: i64,
    /// Operands; `None` where an optional one is omitted. Their number was checked against the rule.
    pub operands: &'a [Option<Value>],
    /// Inside of a function: its attributes, which those of its nodes may refer to.
    pub references: Option<&'a BTreeMap<&'a str, &'a AttributeProto>>,
}

impl Deref for NodeContext<'_> {
    type Target = Builder;

    fn deref(&self) -> &Builder {
        self.builder
    }
}

impl DerefMut for NodeContext<'_> {
    fn deref_mut(&mut self) -> &mut Builder {
        self.builder
    }
}

impl<'a> NodeContext<'a> {
    /// Operand `index`, which must be there.
    pub fn operand(&self, index: usize) -> Result<Value, Reason> {
        self.optional(index).ok_or_else(|| format!("operand {index} is missing").into())
    }

    /// Operand `index`, if it is given.
    pub fn optional(&self, index: usize) -> Option<Value> {
        self.operands.get(index).copied().flatten()
    }

    /// All operands; none may be omitted.
    pub fn all_operands(&self) -> Result<Vec<Value>, Reason> {
        (0..self.operands.len()).map(|i| self.operand(i)).collect()
    }

    /// Applies a composition of operators to a float; one of 16 bits is computed in `f32` and rounded once, at the end.
    pub fn in_f32(
        &mut self,
        x: Value,
        compose: impl FnOnce(&mut Self, Value) -> Result<Value, Reason>,
    ) -> Result<Value, Reason> {
        let dtype = self.dtype(x);
        if !matches!(dtype, DType::F16 | DType::BF16) {
            return compose(self, x);
        }
        let wide = self.cast(x, DType::F32)?;
        let result = compose(self, wide)?;
        self.cast(result, dtype)
    }

    /// Refuses an operand that is given.
    pub fn refuse_operand(&self, index: usize, what: &str) -> Result<(), Reason> {
        match self.optional(index) {
            Some(_) => Err(format!("operand `{what}` is not supported").into()),
            None => Ok(()),
        }
    }

    /// The constant that operand `index` is.
    pub fn constant_operand(&self, index: usize, what: &str) -> Result<&Tensor, Reason> {
        let value = self.operand(index)?;
        self.graph.const_of(value).ok_or_else(|| {
            let name = self.node.input.get(index).map(String::as_str).unwrap_or_default();
            format!("{what} (`{name}`) must be known at compile time, but is computed from the model's inputs").into()
        })
    }

    /// Operand `index` as a list of integers, which must be constant.
    pub fn int_list(&self, index: usize, what: &str) -> Result<Vec<i64>, Reason> {
        let tensor = self.constant_operand(index, what)?;
        let most = MAX_LIST.max(self.node.output.len()) as u64;
        if tensor.ty().rank() > 1 || tensor.ty().elems() > most {
            return Err(format!("{what} has type {} instead of a short list", tensor.ty()).into());
        }
        let values: Option<Vec<i64>> = (0..tensor.ty().elems()).map(|i| tensor.get_i64(i)).collect();
        values.ok_or_else(|| format!("{what} has type {} instead of integers", tensor.ty()).into())
    }

    /// Like [`Self::int_list`], for an operand that may be omitted.
    pub fn optional_int_list(&self, index: usize, what: &str) -> Result<Option<Vec<i64>>, Reason> {
        self.optional(index).map(|_| self.int_list(index, what)).transpose()
    }

    /// Refuses an attribute that is given: the operator set has it as an operand.
    pub fn refuse_attribute(&self, name: &str) -> Result<(), Reason> {
        match self.has_attribute(name) {
            true => Err(format!("`{name}` is an operand in operator set {}, not an attribute", self.opset).into()),
            false => Ok(()),
        }
    }

    /// A list of integers that is operand `index` from operator set `since` on and an attribute before.
    pub fn list_since(&self, since: i64, index: usize, name: &str) -> Result<Option<Vec<i64>>, Reason> {
        if self.opset >= since {
            self.refuse_attribute(name)?;
            return self.optional_int_list(index, &format!("`{name}`"));
        }
        self.refuse_operand(index, name)?;
        Ok(self.ints_attribute(name)?.map(<[i64]>::to_vec))
    }

    /// Operand `index` as one integer, which must be constant.
    pub fn int_operand(&self, index: usize, what: &str) -> Result<i64, Reason> {
        match self.int_list(index, what)?.as_slice() {
            &[value] => Ok(value),
            list => Err(format!("{what} has {} elements instead of one", list.len()).into()),
        }
    }

    /// An attribute; one that refers to an attribute of the function around the node is that, or is omitted as that is.
    fn any_attribute(&self, name: &str) -> Result<Option<&'a AttributeProto>, Reason> {
        let Some(attribute) = self.node.attribute.iter().find(|a| a.name == name) else { return Ok(None) };
        match (attribute.ref_attr_name.as_str(), self.references) {
            ("", _) => Ok(Some(attribute)),
            (reference, Some(attributes)) => Ok(attributes.get(reference).copied()),
            (_, None) => {
                Err(format!("attribute `{name}` refers to a function's attribute outside of a function").into())
            }
        }
    }

    fn attribute(&self, name: &str, kind: i32) -> Result<Option<&'a AttributeProto>, Reason> {
        let Some(attribute) = self.any_attribute(name)? else { return Ok(None) };
        if attribute.r#type != kind {
            return Err(format!("attribute `{name}` is of another type than the operator's").into());
        }
        Ok(Some(attribute))
    }

    /// Whether the node has an attribute of that name.
    pub fn has_attribute(&self, name: &str) -> bool {
        matches!(self.any_attribute(name), Ok(Some(_)))
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Result<Option<i64>, Reason> {
        Ok(self.attribute(name, attribute_type::INT)?.map(|a| a.i))
    }

    /// An integer attribute that stands for a truth value.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, Reason> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, Reason> {
        Ok(self.attribute(name, attribute_type::FLOAT)?.map_or(default, |a| a.f))
    }

    /// A float attribute without a default value.
    pub fn optional_float(&self, name: &str) -> Result<Option<f32>, Reason> {
        Ok(self.attribute(name, attribute_type::FLOAT)?.map(|a| a.f))
    }

    /// An attribute that is a list of integers.
    pub fn ints_attribute(&self, name: &str) -> Result<Option<&[i64]>, Reason> {
        Ok(self.attribute(name, attribute_type::INTS)?.map(|a| a.ints.as_slice()))
    }

    /// An attribute that is a list of floats.
    pub fn floats_attribute(&self, name: &str) -> Result<Option<&[f32]>, Reason> {
        Ok(self.attribute(name, attribute_type::FLOATS)?.map(|a| a.floats.as_slice()))
    }

    /// A text attribute.
    pub fn text(&self, name: &str, default: &'static str) -> Result<&str, Reason> {
        match self.attribute(name, attribute_type::STRING)? {
            None => Ok(default),
            Some(a) => std::str::from_utf8(&a.s).map_err(|_| format!("attribute `{name}` is no text").into()),
        }
    }

    /// An attribute that is a list of texts.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<&str>>, Reason> {
        let Some(attribute) = self.attribute(name, attribute_type::STRINGS)? else { return Ok(None) };
        let texts: Result<Vec<&str>, _> = attribute.strings.iter().map(|s| std::str::from_utf8(s)).collect();
        texts.map(Some).map_err(|_| format!("attribute `{name}` is no text").into())
    }

    /// A sparse tensor attribute.
    pub fn sparse_tensor(&mut self, name: &str) -> Result<Option<Tensor>, Reason> {
        let Some(attribute) = self.attribute(name, attribute_type::SPARSE_TENSOR)? else { return Ok(None) };
        let proto = attribute.sparse_tensor.as_ref().ok_or_else(|| format!("attribute `{name}` holds no tensor"))?;
        let tensor = sparse::tensor(proto, name, self.files, self.builder);
        tensor.map(Some).map_err(|e| attribute_error(name, e))
    }

    /// A tensor attribute.
    pub fn tensor(&mut self, name: &str) -> Result<Option<Tensor>, Reason> {
        let Some(attribute) = self.attribute(name, attribute_type::TENSOR)? else { return Ok(None) };
        let proto = attribute.t.as_ref().ok_or_else(|| format!("attribute `{name}` holds no tensor"))?;
        tensor::tensor(proto, name, self.files, self.builder).map(Some).map_err(|e| attribute_error(name, e))
    }

    /// Refuses an integer attribute that is set to anything but what is supported.
    pub fn expect_int(&self, name: &str, supported: i64) -> Result<(), Reason> {
        match self.int(name)? {
            Some(value) if value != supported => {
                Err(format!("{name} = {value} is not supported, only {supported}").into())
            }
            _ => Ok(()),
        }
    }

    /// A dimension's index from ONNX's, where negative ones count from the end. `rank` may be one more than that of
    /// the operand, where the axis is a position between dimensions.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Reason> {
        self::axis(axis, rank)
    }

    /// Sorted and distinct dimensions from ONNX's list.
    pub fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Reason> {
        let mut sorted: Vec<usize> = axes.iter().map(|&a| self.axis(a, rank)).collect::<Result<_, _>>()?;
        sorted.sort_unstable();
        match sorted.windows(2).any(|w| w[0] == w[1]) {
            true => Err(format!("dimensions {axes:?} are not distinct").into()),
            false => Ok(sorted),
        }
    }
}

/// A dimension's index from ONNX's, where negative ones count from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, Reason> {
    let signed = rank as i64;
    let wrapped = if axis < 0 { axis.checked_add(signed) } else { Some(axis) };
    wrapped
        .filter(|&a| (0..signed).contains(&a))
        .map(|a| a as usize)
        .ok_or_else(|| format!("dimension {axis} of a tensor of rank {rank}").into())
}

fn attribute_error(name: &str, error: TensorError) -> Reason {
    match error {
        TensorError::DType(dtype) => format!("attribute `{name}` has elements of type {dtype}").into(),
        TensorError::Broken(error) => error.to_string().into(),
    }
}
