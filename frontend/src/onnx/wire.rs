//! How much memory decoding would take, counted on the wire before any of it is allocated.
//!
//! An empty message is two bytes in the file and hundreds in memory, so a small file could ask for gigabytes. The
//! count follows the messages of [`super::schema`] and needs no memory itself beyond a stack of open messages.

use std::mem::size_of;

use super::schema::*;

/// Memory that any model may take.
const BASE_BYTES: u64 = 64 << 20;

/// How much more a model may take for each byte of its file. Integers in packed lists take 8; nodes and constants of
/// real models take 2 to 6.
const BYTES_PER_BYTE: u64 = 16;

/// How deep messages nest inside the model's at most; the decoder has the same limit.
const MAX_DEPTH: usize = 100;

/// Why the messages of a file are not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// They would take more memory than a file of this size may.
    #[error("its messages would take far more memory than the file has bytes")]
    TooLarge,
    /// They nest too deep. A graph inside a graph is three levels: the node's, the attribute's and its own.
    #[error("its graphs are nested more than 32 deep")]
    TooDeep,
}

/// A message of the schema that holds others or lists.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Opset,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Entry,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
    Function,
}

impl Kind {
    /// The message in field `tag`, if that holds one.
    fn child(self, tag: u64) -> Option<Kind> {
        Some(match (self, tag) {
            (Kind::Model, 7) | (Kind::Attribute, 6) => Kind::Graph,
            (Kind::Model, 8) | (Kind::Function, 9) => Kind::Opset,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Attribute, 5) | (Kind::Sparse, 1 | 2) => Kind::Tensor,
            (Kind::Graph, 11 | 12) => Kind::ValueInfo,
            (Kind::Graph, 15) | (Kind::Attribute, 22) => Kind::Sparse,
            (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
            (Kind::Tensor, 13) => Kind::Entry,
            (Kind::ValueInfo, 2) => Kind::Type,
            (Kind::Type, 1) => Kind::TensorType,
            (Kind::TensorType, 2) => Kind::Shape,
            (Kind::Shape, 1) => Kind::Dimension,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Kind::Model => size_of::<ModelProto>(),
            Kind::Opset => size_of::<OperatorSetIdProto>(),
            Kind::Graph => size_of::<GraphProto>(),
            Kind::Node => size_of::<NodeProto>(),
            Kind::Attribute => size_of::<AttributeProto>(),
            Kind::Tensor => size_of::<TensorProto>(),
            Kind::Sparse => size_of::<SparseTensorProto>(),
            Kind::Entry => size_of::<StringStringEntryProto>(),
            Kind::ValueInfo => size_of::<ValueInfoProto>(),
            Kind::Type => size_of::<TypeProto>(),
            Kind::TensorType => size_of::<TensorTypeProto>(),
            Kind::Shape => size_of::<TensorShapeProto>(),
            Kind::Dimension => size_of::<DimensionProto>(),
            Kind::Function => size_of::<FunctionProto>(),
        }
    }

    /// Memory of a field of bytes on the wire that holds no message: texts, packed lists, weights (which stay where
    /// they are).
    fn leaf_bytes(self, tag: u64, length: u64) -> u64 {
        match (self, tag) {
            // Packed lists of variable-length integers.
            (Kind::Tensor, 1 | 7 | 11) | (Kind::Attribute, 8) | (Kind::Sparse, 3) => length.saturating_mul(8),
            (Kind::Tensor, 5) => length.saturating_mul(4),
            (Kind::Tensor, 9) => 0,
            _ => length.saturating_add(size_of::<String>() as u64),
        }
    }
}

/// Checks that decoding a model takes memory in proportion to its bytes, and no deep recursion. Bytes that are no
/// model are left to the decoder, which refuses them.
pub(super) fn check(bytes: &[u8]) -> Result<(), WireError> {
    let limit = BASE_BYTES.saturating_add((bytes.len() as u64).saturating_mul(BYTES_PER_BYTE));
    match decoded_bytes(bytes, limit)? <= limit {
        true => Ok(()),
        false => Err(WireError::TooLarge),
    }
}

/// Bytes that the decoded messages take; the count stops above `limit`.
fn decoded_bytes(bytes: &[u8], limit: u64) -> Result<u64, WireError> {
    let mut total = 0u64;
    let mut open = vec![(Kind::Model, bytes.len())];
    let mut at = 0;
    while let Some(&(kind, end)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        let Some(key) = varint(bytes, &mut at) else { break };
        let tag = key >> 3;
        match key & 7 {
            0 => {
                if varint(bytes, &mut at).is_none() {
                    break;
                }
                total = total.saturating_add(8);
            }
            1 => at = at.saturating_add(8),
            2 => {
                let Some(length) = varint(bytes, &mut at) else { break };
                let Some(field_end) =
                    usize::try_from(length).ok().and_then(|l| at.checked_add(l)).filter(|&e| e <= end)
                else {
                    break;
                };
                match kind.child(tag) {
                    Some(_) if open.len() > MAX_DEPTH => return Err(WireError::TooDeep),
                    Some(child) => {
                        total = total.saturating_add(child.bytes() as u64);
                        open.push((child, field_end));
                    }
                    None => {
                        total = total.saturating_add(kind.leaf_bytes(tag, length));
                        at = field_end;
                    }
                }
            }
            // The ends of groups, which ONNX has none of.
            3 | 4 => {}
            5 => at = at.saturating_add(4),
            _ => break,
        }
        if total > limit {
            break;
        }
    }
    Ok(total)
}

/// A variable-length integer at `at`, which moves behind it.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn empty_messages_count_what_they_take() {
        let nodes = vec![NodeProto { attribute: vec![AttributeProto::default(); 3], ..Default::default() }; 5];
        let model = ModelProto { graph: Some(GraphProto { node: nodes, ..Default::default() }), ..Default::default() };
        let expected = size_of::<GraphProto>() + 5 * size_of::<NodeProto>() + 15 * size_of::<AttributeProto>();
        assert_eq!(decoded_bytes(&model.encode_to_vec(), u64::MAX), Ok(expected as u64));
    }

    #[test]
    fn weights_cost_nothing_and_lists_their_elements() {
        let tensor = TensorProto { raw_data: Some(vec![0; 1000].into()), ..Default::default() };
        let graph = GraphProto { initializer: vec![tensor], ..Default::default() };
        let mut model = ModelProto { graph: Some(graph), ..Default::default() };
        let structs = (size_of::<GraphProto>() + size_of::<TensorProto>()) as u64;
        assert_eq!(decoded_bytes(&model.encode_to_vec(), u64::MAX), Ok(structs));
        let graph = model.graph.as_mut().expect("made with a graph");
        graph.initializer[0].int64_data = vec![1; 100];
        assert_eq!(decoded_bytes(&model.encode_to_vec(), u64::MAX), Ok(structs + 800));
    }

    #[test]
    fn bytes_that_are_no_model_end_the_count() {
        for bytes in [&[][..], &[0xff; 40], &[0x3a, 0xff, 0x01], &[0x07], &[0x3a, 0x02, 0x0a]] {
            assert!(decoded_bytes(bytes, u64::MAX).is_ok_and(|total| total < 1000));
        }
    }
}
