//! The text form of graphs: [`Graph`] prints through `Display` and is read by [`Graph::parse`].
//!
//! ```text
//! graph "name" {
//!   in v0 "x": f32[2, 2]
//!   const v1 "w": f32[2, 2] = [1.0, 2.0, 3.0, 4.0]
//!   const v2 "table": f32[384, 384] = #5f3c9a10...
//!   v3 "q": f32[2, 2] = matmul v0, v1 @ "layer 0"
//!   v4 "t": f32[2, 2] = transpose v3 {perm: [1, 0]}
//!   out "y" v4
//! }
//! ```
//!
//! A node with several results lists them, and a scan ends with its body, in the same form:
//!
//! ```text
//!   v3 "last": f32[4], v4 "all": f32[8, 4] = scan v0, v1 {trips: 8, reverse: false, states: 1, sequences: 1} graph "" {
//!     ...
//!   }
//! ```
//!
//! The text after `@` is the node's name where it differs from its result's. Attributes are written in the order of the
//! operator's declaration, and all of them. Constants of more than 16 elements print as a hash of their bytes, which are
//! kept beside the text ([`SideConsts`]).
//!
//! Printing is canonical: it numbers inputs, then used constants, then results, each in order, and leaves out what is not
//! in force. So reading a printed graph gives that graph up to numbering, and printing it again gives the same text.

mod parse;
mod print;

use super::{Graph, Op};
use crate::text::constant::SideConsts;

impl Graph {
    /// The constants that the text form names by hash.
    pub fn side_consts(&self) -> SideConsts {
        let mut side = SideConsts::new();
        self.add_side_consts(&mut side);
        side
    }

    fn add_side_consts(&self, side: &mut SideConsts) {
        for value in print::printed_consts(self) {
            if let Some(tensor) = self.const_of(value) {
                side.add(tensor);
            }
        }
        for &node in &self.order {
            if let Some(Op::Scan(scan)) = self.nodes.get(node).map(|n| &n.op) {
                scan.body.add_side_consts(side);
            }
        }
    }
}

#[cfg(test)]
mod tests;
