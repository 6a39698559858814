//! Operators that hold graphs.

use super::accept::{ANY, BOOL, I64};
use super::{OpRule, VARIADIC, graphs};
use crate::onnx::control::{import_if, import_loop};
use crate::onnx::scan::import_scan;

pub(super) const RULES: &[OpRule] = &[
    graphs(
        "If",
        (1, 1),
        &["then_branch", "else_branch"],
        "condition known at compile time, or branches of one type whose indices cannot be out of range",
        import_if,
    )
    .types(BOOL),
    graphs("Loop", (0, VARIADIC), &["body"], "number of trips known at compile time", import_loop)
        .types(ANY)
        .own(&[(0, I64), (1, BOOL)]),
    graphs(
        "Scan",
        (0, VARIADIC),
        &[
            "body",
            "directions",
            "num_scan_inputs",
            "scan_input_axes",
            "scan_input_directions",
            "scan_output_axes",
            "scan_output_directions",
        ],
        "all axes and directions",
        import_scan,
    )
    .types(ANY)
    .since(8),
];
