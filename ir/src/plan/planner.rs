//! The planner: offsets in the arena and in the weight block.

use rustc_hash::FxHashMap;

use super::lifetime::{Lifetime, Lifetimes};
use super::pack::{Block, Packing, most_alive, pack};
use super::{ALIGN_BYTES, Place, Plan};
use crate::tile::{Buffer, BufferData, Program, Storage};
use crate::types::Tensor;

/// Why a program has no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A size or the sum of sizes passes what offsets can hold.
    #[error("the {what} would need more than 2^62 bytes")]
    TooLarge {
        /// `arena` or `weight block`.
        what: &'static str,
    },
    /// The inputs and outputs that the program lists are not those that its buffers name.
    #[error("buffer {buffer} is not where the program's {what} say it is")]
    Inconsistent {
        /// The buffer.
        buffer: Buffer,
        /// `inputs` or `outputs`.
        what: &'static str,
    },
}

/// Sums of sizes stay below this, so that offsets fit a signed 64-bit displacement.
const MAX_BYTES: u64 = 1 << 62;

/// Plans the memory of a scheduled program. A pure function: equal programs get equal plans.
///
/// # Errors
/// When sizes overflow, or the program's lists of inputs and outputs contradict its buffers.
pub fn plan(program: &Program) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    place_arguments(program, &mut plan)?;
    let lifetimes = Lifetimes::of(program);
    place_constants(program, &lifetimes.constants, &mut plan)?;
    place_arena(program, &lifetimes, &mut plan)?;
    Ok(plan)
}

fn place_arguments(program: &Program, plan: &mut Plan) -> Result<(), PlanError> {
    for (i, &buffer) in program.inputs.iter().enumerate() {
        if program.buffers.get(buffer).map(|b| &b.storage) != Some(&Storage::Input(i as u32)) {
            return Err(PlanError::Inconsistent { buffer, what: "inputs" });
        }
        plan.places[buffer] = Place::Input(i as u32);
    }
    for (i, &buffer) in program.outputs.iter().enumerate() {
        if program.buffers.get(buffer).map(|b| &b.storage) != Some(&Storage::Output(i as u32)) {
            return Err(PlanError::Inconsistent { buffer, what: "outputs" });
        }
        plan.places[buffer] = Place::Output(i as u32);
    }
    Ok(())
}

/// Size rounded up to the alignment.
fn padded_bytes(buffer: &BufferData) -> Option<u64> {
    let elems = buffer.layout.dims.iter().try_fold(1u64, |n, d| n.checked_mul(d.extent))?;
    elems.checked_mul(buffer.dtype.bytes())?.checked_next_multiple_of(ALIGN_BYTES).filter(|&b| b <= MAX_BYTES)
}

/// Constants lie in order of first use, which is also the order in which a run streams through them. Those with equal
/// stored bytes lie in one place.
fn place_constants(program: &Program, constants: &[Buffer], plan: &mut Plan) -> Result<(), PlanError> {
    let too_large = PlanError::TooLarge { what: "weight block" };
    let mut same_content: FxHashMap<&[u8], Vec<Buffer>> = FxHashMap::default();
    for &buffer in constants {
        let data = &program.buffers[buffer];
        let Some(tensor) = tensor_of(data) else { continue };
        let twins = same_content.entry(tensor.bytes()).or_default();
        let twin = twins.iter().find(|&&twin| {
            let other = &program.buffers[twin];
            other.layout == data.layout && other.shape == data.shape && other.dtype.bytes() == data.dtype.bytes()
        });
        if let Some(&twin) = twin {
            plan.places[buffer] = plan.places[twin];
            continue;
        }
        twins.push(buffer);
        plan.places[buffer] = Place::Weights(plan.weights_bytes);
        let bytes = padded_bytes(data).and_then(|b| b.checked_add(plan.weights_bytes));
        plan.weights_bytes = bytes.filter(|&b| b <= MAX_BYTES).ok_or_else(|| too_large.clone())?;
    }
    Ok(())
}

fn tensor_of(buffer: &BufferData) -> Option<&Tensor> {
    if let Storage::Const(tensor) = &buffer.storage { Some(tensor) } else { None }
}

fn place_arena(program: &Program, lifetimes: &Lifetimes, plan: &mut Plan) -> Result<(), PlanError> {
    let too_large = PlanError::TooLarge { what: "arena" };
    let mut apart = Vec::new();
    for buffer in program.buffers.keys() {
        if let Some(life) = lifetimes.of[buffer] {
            let bytes = padded_bytes(&program.buffers[buffer]).ok_or_else(|| too_large.clone())?;
            apart.push((vec![buffer], Block { bytes, life }));
        }
    }
    let shared = share_in_place(&apart, &lifetimes.in_place);
    // A shared block lives longer than its parts, which can pack worse; so both ways are tried.
    let (packing, groups, live) = [shared, apart]
        .into_iter()
        .map(|groups| {
            let blocks: Vec<Block> = groups.iter().map(|g| g.1).collect();
            let live = most_alive(&blocks)?;
            Some((pack(&blocks, live)?, groups, live))
        })
        .try_fold(None::<(Packing, Vec<(Vec<Buffer>, Block)>, u64)>, |best, next| {
            let next = next?;
            Some(Some(match best {
                Some(best) if best.0.bytes <= next.0.bytes => best,
                _ => next,
            }))
        })
        .flatten()
        .filter(|(packing, ..)| packing.bytes <= MAX_BYTES)
        .ok_or(too_large)?;
    for (offset, (buffers, _)) in packing.offsets.iter().zip(&groups) {
        for &buffer in buffers {
            plan.places[buffer] = Place::Arena(*offset);
        }
    }
    plan.arena_bytes = packing.bytes;
    plan.live_bytes = live;
    Ok(())
}

/// Joins the blocks of each in-place pair.
fn share_in_place(apart: &[(Vec<Buffer>, Block)], pairs: &[(Buffer, Buffer)]) -> Vec<(Vec<Buffer>, Block)> {
    let mut groups: Vec<Option<(Vec<Buffer>, Block)>> = apart.iter().cloned().map(Some).collect();
    let mut home: FxHashMap<Buffer, usize> = apart.iter().enumerate().map(|(i, g)| (g.0[0], i)).collect();
    for (source, result) in pairs {
        let (Some(&to), Some(&from)) = (home.get(source), home.get(result)) else { continue };
        if to == from {
            continue;
        }
        let Some((moved, block)) = groups[from].take() else { continue };
        let Some((buffers, shared)) = &mut groups[to] else { continue };
        for &buffer in &moved {
            home.insert(buffer, to);
        }
        buffers.extend(moved);
        shared.bytes = shared.bytes.max(block.bytes);
        shared.life =
            Lifetime { first: shared.life.first.min(block.life.first), last: shared.life.last.max(block.life.last) };
    }
    groups.into_iter().flatten().collect()
}
