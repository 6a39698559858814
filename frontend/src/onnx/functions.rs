//! The functions that a model brings along, found by the nodes that call them.

use super::decode::{domain, standard_opset};
use super::names;
use super::schema::{FunctionProto, NodeProto};
use crate::error::ReadError;

/// A function, and the version of the standard operator set that its nodes come from.
pub(super) struct Function {
    pub proto: FunctionProto,
    pub opset: i64,
}

impl Function {
    fn key(&self) -> (&str, &str, &str) {
        (domain(&self.proto.domain), &self.proto.name, &self.proto.overload)
    }
}

/// Functions by domain, name and overload.
pub(super) struct Functions(Vec<Function>);

impl Functions {
    /// Checks names, and that there are no two functions of one name. A function that imports no standard operator
    /// set has that of the model.
    pub fn new(protos: Vec<FunctionProto>, opset: i64) -> Result<Self, ReadError> {
        let mut functions = Vec::with_capacity(protos.len());
        for proto in protos {
            names::check_function(&proto)?;
            let opset = standard_opset(&proto.opset_import)?.unwrap_or(opset);
            functions.push(Function { proto, opset });
        }
        functions.sort_by(|a, b| a.key().cmp(&b.key()));
        match functions.windows(2).find(|w| w[0].key() == w[1].key()) {
            Some(w) => Err(ReadError::Malformed(format!("two functions are named `{}`", w[0].proto.name))),
            None => Ok(Self(functions)),
        }
    }

    /// The function that a node calls, if it calls one. Functions go before operators of the same name.
    pub fn called_by(&self, node: &NodeProto) -> Option<&Function> {
        let key = (domain(&node.domain), node.op_type.as_str(), node.overload.as_str());
        self.0.binary_search_by(|f| f.key().cmp(&key)).ok().and_then(|i| self.0.get(i))
    }
}
