//! Choice of register tiles by counting.
//!
//! A register tile of `m × n` elements of a contraction costs, for each step of the reduced dimension, `m·n/lanes` multiply-adds,
//! `n/lanes` vector loads and `m` broadcasts. Its time is the largest of what the multiply-add units, the load ports and the
//! latency of the chains need (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the counts
//! of Low et al., "Analytical modeling is enough for high-performance BLIS", 2016). The accumulators, one row of the
//! right operand and one broadcast must fit the registers.

use crate::machine::Machine;

/// A register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterTile {
    /// Rows: elements of the left operand, broadcast.
    pub m: u64,
    /// Columns: elements of the right operand, in vectors.
    pub n: u64,
}

/// Cycles from a multiply-add's operands to its result; the same within one on every core that machines describe.
const MAC_LATENCY_CYCLES: f64 = 4.0;

/// Cycles of one step of the reduced dimension for a tile of `m × n` elements.
pub fn step_cycles(machine: &Machine, m: u64, n: u64) -> f64 {
    let lanes = machine.lanes_f32();
    // A rest narrower than a vector runs element by element.
    let columns = (n / lanes + n % lanes) as f64;
    let macs = m as f64 * columns;
    (macs / machine.mac_per_cycle).max((columns + m as f64) / machine.loads_per_cycle).max(MAC_LATENCY_CYCLES)
}

/// The tile that computes an `m × n` result in the fewest cycles per step of the reduced dimension, rests included; of equals
/// the one with the smallest code.
pub fn register_tile(machine: &Machine, m: u64, n: u64) -> RegisterTile {
    let lanes = machine.lanes_f32();
    let mut best = (f64::INFINITY, RegisterTile { m: 1, n: n.min(lanes) });
    for columns in 1..=machine.vector_registers.min(8) {
        for rows in 1..=m.min(8) {
            // Without fused multiply-add the product needs a register of its own.
            let spare = if machine.fma { 1 } else { 2 };
            if rows * columns + columns + spare > machine.vector_registers {
                break;
            }
            let tile = RegisterTile { m: rows, n: columns * lanes };
            if tile.n > n.max(lanes) {
                continue;
            }
            let cycles = covered_cycles(machine, m, n, tile);
            if cycles < best.0 * 0.999 {
                best = (cycles, tile);
            }
        }
    }
    best.1
}

/// Cycles per step of the reduced dimension to cover the whole result.
fn covered_cycles(machine: &Machine, m: u64, n: u64, tile: RegisterTile) -> f64 {
    let parts =
        |extent: u64, size: u64| [(extent / size, size), (u64::from(!extent.is_multiple_of(size)), extent % size)];
    let mut cycles = 0.0;
    for (rows, row_size) in parts(m, tile.m) {
        for (columns, column_size) in parts(n, tile.n) {
            if rows * columns > 0 {
                cycles += (rows * columns) as f64 * step_cycles(machine, row_size, column_size);
            }
        }
    }
    cycles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::builtin;

    #[test]
    fn large_products_keep_the_multiply_add_units_busy() {
        let machine = builtin("x86-64-v3").ok();
        let tile = machine.as_ref().map(|m| register_tile(m, 128, 384));
        let share = machine.zip(tile).map(|(m, t)| {
            let ideal = (t.m * t.n / 4) as f64 / m.mac_per_cycle;
            (ideal / step_cycles(&m, t.m, t.n), 128 % t.m, 384 % t.n)
        });
        assert_eq!(share, Some((1.0, 0, 0)));
    }

    #[test]
    fn one_row_uses_many_columns_to_hide_the_latency() {
        let tile = builtin("x86-64-v3").map(|m| register_tile(&m, 1, 384).n);
        assert!(tile.is_ok_and(|n| n >= 24));
    }
}
