//! Choice of register tiles by counting.
//!
//! A register tile of `m × n` elements of a contraction costs, for each step of the reduced dimension, `m·n/lanes` multiply-adds,
//! `n/lanes` vector loads and `m` broadcasts, or `m/lanes` loads where multiply-adds take lanes of a register. Its time is the largest of what the multiply-add units, the load ports and the
//! latency of the chains need (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, with the counts
//! of Low et al., "Analytical modeling is enough for high-performance BLIS", 2016). The accumulators, one row of the
//! right operand and one broadcast must fit the registers.

use crate::machine::MacUnit;

/// A register tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterTile {
    /// Rows: elements of the left operand, broadcast.
    pub m: u64,
    /// Columns: elements of the right operand, in vectors.
    pub n: u64,
}

/// Cycles from a multiply-add's operands to its result, the same within one on every core that machines describe, and half a
/// cycle for what a tile that just covers it loses to the scheduler of the core.
const MAC_LATENCY_CYCLES: f64 = 4.5;

/// Cycles that a load costs even where the load ports are not the limit.
const LOAD_PRESSURE_CYCLES: f64 = 0.05;

/// Cycles of one step of the reduced dimension for a tile of `m × n` elements.
pub fn step_cycles(unit: &MacUnit, m: u64, n: u64) -> f64 {
    let lanes = unit.lanes;
    // A rest narrower than a vector runs element by element, unless there are masks.
    let columns = if unit.masked { n.div_ceil(lanes) } else { n / lanes + n % lanes } as f64;
    let macs = m as f64 * columns;
    let loads = columns + m as f64 / unit.scalars_per_load as f64;
    let limit = (macs / unit.mac_per_cycle).max(loads / unit.loads_per_cycle).max(MAC_LATENCY_CYCLES);
    limit + LOAD_PRESSURE_CYCLES * loads
}

/// The tile that computes an `m × n` result in the fewest cycles per step of the reduced dimension, rests included; of equals
/// the one with the smallest code.
pub fn register_tile(unit: &MacUnit, m: u64, n: u64) -> RegisterTile {
    let lanes = unit.lanes;
    let mut best = (f64::INFINITY, RegisterTile { m: 1, n: n.min(lanes) });
    for columns in 1..=8 {
        for rows in 1..=m.min(8) {
            // Lanes are kept for as many steps as they hold.
            let left = if unit.scalars_per_load > 1 { rows } else { 0 };
            if rows * columns + columns + left + unit.spare_registers > unit.registers {
                break;
            }
            let tile = RegisterTile { m: rows, n: columns * lanes };
            if tile.n > n.max(lanes) {
                continue;
            }
            let cycles = covered_cycles(unit, m, n, tile);
            if cycles < best.0 * 0.999 {
                best = (cycles, tile);
            }
        }
    }
    best.1
}

/// Cycles per step of the reduced dimension to cover the whole result.
fn covered_cycles(unit: &MacUnit, m: u64, n: u64, tile: RegisterTile) -> f64 {
    let parts =
        |extent: u64, size: u64| [(extent / size, size), (u64::from(!extent.is_multiple_of(size)), extent % size)];
    let mut cycles = 0.0;
    for (rows, row_size) in parts(m, tile.m) {
        for (columns, column_size) in parts(n, tile.n) {
            if rows * columns > 0 {
                cycles += (rows * columns) as f64 * step_cycles(unit, row_size, column_size);
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
        for machine in ["x86-64-v3", "aarch64"] {
            let unit = builtin(machine).expect("it is built in").mac_unit();
            let tile = register_tile(&unit, 128, 384);
            let share = 128.0 * 384.0 / 4.0 / unit.mac_per_cycle / covered_cycles(&unit, 128, 384, tile);
            assert!(share > 0.9, "{machine}: {tile:?} reaches {share}");
        }
    }

    #[test]
    fn one_row_uses_many_columns_to_hide_the_latency() {
        let unit = builtin("x86-64-v3").expect("it is built in").mac_unit();
        assert!(register_tile(&unit, 1, 384).n >= 24);
    }
}
