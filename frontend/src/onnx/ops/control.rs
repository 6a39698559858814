//! Operators that hold graphs.

use super::{Import, OpRule, VARIADIC};
use crate::onnx::control::{import_if, import_loop};
use crate::onnx::scan::import_scan;

pub(super) const RULES: &[OpRule] = &[
    OpRule {
        name: "If",
        since: 7,
        doc: "condition known at compile time",
        operands: (1, 1),
        attributes: &["then_branch", "else_branch"],
        import: Import::Graphs(import_if),
    },
    OpRule {
        name: "Loop",
        since: 7,
        doc: "number of trips known at compile time",
        operands: (0, VARIADIC),
        attributes: &["body"],
        import: Import::Graphs(import_loop),
    },
    OpRule {
        name: "Scan",
        since: 8,
        doc: "all axes and directions",
        operands: (0, VARIADIC),
        attributes: &[
            "body",
            "directions",
            "num_scan_inputs",
            "scan_input_axes",
            "scan_input_directions",
            "scan_output_axes",
            "scan_output_directions",
        ],
        import: Import::Graphs(import_scan),
    },
];
