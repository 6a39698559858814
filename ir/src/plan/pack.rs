//! Packing of lifetimes: offsets for blocks so that those alive at once do not overlap, in little space.
//!
//! The problem is NP-hard (dynamic storage allocation; Garey & Johnson SR2), so several greedy orders are tried and the
//! best is refined by a local search on the order of placement, as in the offset planners of Pisarchyk & Lee, "Efficient
//! Memory Management for Deep Neural Net Inference" (2020). The search is counted in placements, never in time, and its
//! pseudo-random numbers have a fixed seed, so that equal programs get equal plans.

use std::collections::{BTreeMap, BTreeSet};

use super::lifetime::Lifetime;

/// Something to be placed: `bytes` (a multiple of the alignment) during a lifetime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub bytes: u64,
    pub life: Lifetime,
}

/// Offsets of blocks, and the end of the highest.
#[derive(Clone, Debug)]
pub(super) struct Packing {
    pub offsets: Vec<u64>,
    pub bytes: u64,
}

/// Comparisons of two blocks that the local search may spend.
const SEARCH_BUDGET: usize = 4_000_000;

/// Tries of the local search at most.
const MAX_CANDIDATES: usize = 2_000;

/// Most pairs of blocks alive at once that are compared one by one; above, memory and time would be those of all pairs.
const MAX_CONFLICTS: u64 = 1 << 22;

/// Places all blocks. `lower_bound` ends the search early when it is met. `None` if the size passes 64 bits.
pub(super) fn pack(blocks: &[Block], lower_bound: u64) -> Option<Packing> {
    if count_conflicts(blocks) > MAX_CONFLICTS {
        return place_in_time(blocks);
    }
    let conflicts = conflicts(blocks);
    let length = |b: &Block| b.life.last - b.life.first;
    let mut by_size: Vec<usize> = (0..blocks.len()).collect();
    by_size.sort_by_key(|&i| (std::cmp::Reverse(blocks[i].bytes), blocks[i].life.first));
    let mut by_length = by_size.clone();
    by_length.sort_by_key(|&i| std::cmp::Reverse(length(&blocks[i])));
    let mut by_area = by_size.clone();
    by_area.sort_by_key(|&i| std::cmp::Reverse(u128::from(blocks[i].bytes) * (length(&blocks[i]) as u128 + 1)));
    let mut by_start = by_size.clone();
    by_start.sort_by_key(|&i| blocks[i].life.first);
    let mut by_pressure = by_size.clone();
    let pressure = pressure_of(blocks, &conflicts);
    by_pressure.sort_by_key(|&i| std::cmp::Reverse(pressure[i]));

    let mut best: Option<(Packing, Vec<usize>)> = None;
    for order in [by_size, by_length, by_area, by_start, by_pressure] {
        let packing = place(blocks, &conflicts, &order)?;
        if best.as_ref().is_none_or(|(b, _)| packing.bytes < b.bytes) {
            best = Some((packing, order));
        }
    }
    let (mut best, mut order) = best?;
    let cost = conflicts.iter().map(Vec::len).sum::<usize>() + blocks.len();
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    for _ in 0..MAX_CANDIDATES.min(SEARCH_BUDGET / cost.max(1)) {
        if best.bytes <= lower_bound {
            break;
        }
        // Only moving a block at the top, to an earlier turn, can lower it.
        let top: Vec<usize> =
            (0..order.len()).filter(|&t| best.offsets[order[t]] + blocks[order[t]].bytes == best.bytes).collect();
        let from = top[random.below(top.len())];
        let to = random.below(from + 1);
        let mut candidate = order.clone();
        candidate[to..=from].rotate_right(1);
        if random.below(2) == 0 {
            let (a, b) = (random.below(order.len()), random.below(order.len()));
            candidate.swap(a, b);
        }
        let packing = place(blocks, &conflicts, &candidate)?;
        if packing.bytes <= best.bytes {
            (best, order) = (packing, candidate);
        }
    }
    Some(best)
}

/// Most bytes alive at one time. `None` if they pass 64 bits.
pub(super) fn most_alive(blocks: &[Block]) -> Option<u64> {
    let mut events: Vec<(usize, bool, u64)> =
        blocks.iter().flat_map(|b| [(b.life.first, true, b.bytes), (b.life.last + 1, false, b.bytes)]).collect();
    // Ends sort before starts at one time.
    events.sort_by_key(|&(time, start, _)| (time, start));
    let (mut alive, mut most) = (0u64, 0);
    for (_, start, bytes) in events {
        alive = if start { alive.checked_add(bytes)? } else { alive - bytes };
        most = most.max(alive);
    }
    Some(most)
}

/// Number of pairs of blocks that are alive at one time.
fn count_conflicts(blocks: &[Block]) -> u64 {
    let mut events: Vec<(usize, bool)> =
        blocks.iter().flat_map(|b| [(b.life.first, true), (b.life.last + 1, false)]).collect();
    // Ends sort before starts at one time.
    events.sort_unstable();
    let (mut alive, mut pairs) = (0u64, 0u64);
    for (_, start) in events {
        if start {
            pairs = pairs.saturating_add(alive);
            alive += 1;
        } else {
            alive -= 1;
        }
    }
    pairs
}

/// Gives each block, in order of its start, the smallest gap that is large enough, or room at the end. Time is that of
/// sorting, whatever the number of blocks alive at once.
fn place_in_time(blocks: &[Block]) -> Option<Packing> {
    let mut by_start: Vec<usize> = (0..blocks.len()).collect();
    by_start.sort_by_key(|&i| (blocks[i].life.first, i));
    let mut by_end = by_start.clone();
    by_end.sort_by_key(|&i| (blocks[i].life.last, i));
    let mut ended = by_end.into_iter().peekable();
    let mut gaps = Gaps::default();
    let mut offsets = vec![0; blocks.len()];
    for i in by_start {
        while let Some(j) = ended.next_if(|&j| blocks[j].life.last < blocks[i].life.first) {
            gaps.free(offsets[j], blocks[j].bytes);
        }
        offsets[i] = gaps.take(blocks[i].bytes)?;
    }
    Some(Packing { offsets, bytes: gaps.end })
}

/// The unused parts of memory, by offset and by size; neighbours are joined.
#[derive(Default)]
struct Gaps {
    by_offset: BTreeMap<u64, u64>,
    by_size: BTreeSet<(u64, u64)>,
    /// End of all memory used so far.
    end: u64,
}

impl Gaps {
    fn remove(&mut self, offset: u64, bytes: u64) {
        self.by_offset.remove(&offset);
        self.by_size.remove(&(bytes, offset));
    }

    fn free(&mut self, mut offset: u64, mut bytes: u64) {
        if bytes == 0 {
            return;
        }
        let before = self.by_offset.range(..offset).next_back().map(|(&o, &b)| (o, b));
        if let Some((o, b)) = before.filter(|&(o, b)| o + b == offset) {
            self.remove(o, b);
            (offset, bytes) = (o, b + bytes);
        }
        if let Some(&b) = self.by_offset.get(&(offset + bytes)) {
            self.remove(offset + bytes, b);
            bytes += b;
        }
        self.by_offset.insert(offset, bytes);
        self.by_size.insert((bytes, offset));
    }

    fn take(&mut self, bytes: u64) -> Option<u64> {
        if let Some(&(size, offset)) = self.by_size.range((bytes, 0)..).next() {
            self.remove(offset, size);
            self.free(offset + bytes, size - bytes);
            return Some(offset);
        }
        // A gap at the end needs to grow only.
        let last = self.by_offset.last_key_value().map(|(&o, &b)| (o, b)).filter(|&(o, b)| o + b == self.end);
        let offset = last.map_or(self.end, |(o, _)| o);
        if let Some((o, b)) = last {
            self.remove(o, b);
        }
        self.end = offset.checked_add(bytes)?;
        Some(offset)
    }
}

/// For each block, the others that are alive at some time of its life.
fn conflicts(blocks: &[Block]) -> Vec<Vec<usize>> {
    let mut by_start: Vec<usize> = (0..blocks.len()).collect();
    by_start.sort_by_key(|&i| blocks[i].life.first);
    let mut conflicts = vec![Vec::new(); blocks.len()];
    let mut alive: Vec<usize> = Vec::new();
    for i in by_start {
        alive.retain(|&j| blocks[j].life.last >= blocks[i].life.first);
        for &j in &alive {
            conflicts[i].push(j);
            conflicts[j].push(i);
        }
        alive.push(i);
    }
    conflicts
}

/// Bytes of each block and all that conflict with it.
fn pressure_of(blocks: &[Block], conflicts: &[Vec<usize>]) -> Vec<u128> {
    let bytes = |i: usize| u128::from(blocks[i].bytes);
    conflicts.iter().enumerate().map(|(i, c)| bytes(i) + c.iter().map(|&j| bytes(j)).sum::<u128>()).collect()
}

/// Gives each block, in order, the lowest offset that is free during its life.
fn place(blocks: &[Block], conflicts: &[Vec<usize>], order: &[usize]) -> Option<Packing> {
    const UNPLACED: u64 = u64::MAX;
    let mut offsets = vec![UNPLACED; blocks.len()];
    let mut bytes = 0;
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for &i in order {
        taken.clear();
        taken.extend(conflicts[i].iter().filter(|&&j| offsets[j] != UNPLACED).map(|&j| (offsets[j], blocks[j].bytes)));
        taken.sort_unstable();
        let mut offset = 0u64;
        for &(start, size) in &taken {
            if start >= offset.checked_add(blocks[i].bytes)? {
                break;
            }
            offset = offset.max(start + size);
        }
        offsets[i] = offset;
        bytes = bytes.max(offset.checked_add(blocks[i].bytes)?);
    }
    Some(Packing { offsets, bytes })
}

/// Marsaglia, "Xorshift RNGs" (2003), with the shifts 13, 7, 17.
struct XorShift(u64);

impl XorShift {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks() -> impl Strategy<Value = Vec<Block>> {
        let block = (0u64..20, 0usize..30, 0usize..8)
            .prop_map(|(n, first, length)| Block { bytes: n * 64, life: Lifetime { first, last: first + length } });
        proptest::collection::vec(block, 1..60)
    }

    proptest! {
        #[test]
        fn blocks_alive_at_once_do_not_overlap(blocks in blocks()) {
            let bound = most_alive(&blocks).unwrap();
            let packing = pack(&blocks, bound).unwrap();
            prop_assert!(packing.bytes <= bound * 2, "{} of {bound}", packing.bytes);
            let quick = place_in_time(&blocks).unwrap();
            prop_assert!(quick.bytes <= bound * 4, "{} of {bound}", quick.bytes);
            for packing in [&packing, &quick] {
                prop_assert!(packing.bytes >= bound);
                for (i, a) in blocks.iter().enumerate() {
                    prop_assert!(packing.offsets[i] + a.bytes <= packing.bytes);
                    for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                        let together = a.life.first <= b.life.last && b.life.first <= a.life.last;
                        let (p, q) = (packing.offsets[i], packing.offsets[j]);
                        prop_assert!(!together || p + a.bytes <= q || q + b.bytes <= p || a.bytes == 0 || b.bytes == 0);
                    }
                }
            }
            let pairs: usize = conflicts(&blocks).iter().map(Vec::len).sum();
            prop_assert_eq!(count_conflicts(&blocks), pairs as u64 / 2);
            prop_assert_eq!(pack(&blocks, bound).unwrap().offsets, packing.offsets);
        }
    }

    #[test]
    fn search_finds_what_greedy_orders_miss() {
        // From the shapes of a residual network: two long blocks under a chain of short ones.
        let block = |n: u64, first, last| Block { bytes: n * 64, life: Lifetime { first, last } };
        let blocks = [
            block(4, 0, 1),
            block(2, 1, 2),
            block(4, 2, 3),
            block(3, 3, 4),
            block(1, 0, 4),
            block(2, 4, 6),
            block(5, 5, 6),
            block(3, 6, 7),
            block(1, 4, 7),
        ];
        let bound = most_alive(&blocks).unwrap();
        assert_eq!(pack(&blocks, bound).unwrap().bytes, bound);
    }

    #[test]
    fn many_blocks_alive_at_once_are_not_compared_pair_by_pair() {
        let blocks = vec![Block { bytes: 64, life: Lifetime { first: 0, last: 1 } }; 200_000];
        assert_eq!(pack(&blocks, 0).unwrap().bytes, 200_000 * 64);
    }

    #[test]
    fn sizes_beyond_64_bits_are_refused() {
        let block = Block { bytes: u64::MAX - 63, life: Lifetime { first: 0, last: 0 } };
        assert!(most_alive(&[block, block]).is_none());
        assert!(pack(&[block, block], 0).is_none());
    }
}
