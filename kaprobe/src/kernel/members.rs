//! Where the programs find the members of kernel structures.
//!
//! The object loads a member at an offset that stands for the real one, and kaprobe replaces it
//! before it loads the programs: a constant in an instruction costs nothing. If the kernel has
//! `bpf_rdonly_cast`, the real one is the member's offset in its structure. Otherwise the
//! programs copy the members of a [`group`] first, in [`Run`]s, and load them from the copy.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use kaprobe_ebpf::config::{
    ABSENT, Config, FIRST_STAND_IN, GROUP_BYTES, Offsets, Run, STAND_IN_BYTES, group,
};

use crate::exit;
use crate::kernel::bpf::Instruction;

/// What the programs read the memory in, bytes: a call copies words first.
const WORD: u32 = 8;

/// The largest gap between two members that is copied with them, bytes. A call takes as many
/// instructions as eight words on 5.10, and eleven on 6.1 (docs/cost.md).
const GAP: u32 = 8 * WORD;

/// The runs of all groups, as [`Config::runs`] has them.
pub type Runs = [Run; group::ALL_RUNS];

/// A load of a member, by an offset that stands for the real one.
#[derive(Clone, Copy)]
struct Load {
    group: usize,
    /// The place of the member's offset among [`Offsets::words`].
    member: usize,
    /// Offset in the member, bytes.
    plus: u32,
    /// Number of bytes.
    bytes: u32,
}

impl Load {
    /// Recognizes such a load: `BPF_LDX | BPF_MEM` (uapi/linux/bpf.h).
    fn of(instruction: &[u8]) -> Option<Self> {
        let &[code, _, low, high, 0, 0, 0, 0] = instruction else {
            return None;
        };
        let bytes = match code {
            0x71 => 1,
            0x69 => 2,
            0x61 => 4,
            0x79 => 8,
            _ => return None,
        };
        let place = u32::from(u16::from_le_bytes([low, high])).checked_sub(FIRST_STAND_IN)?;
        let group = (place / GROUP_BYTES) as usize;
        (group < group::COUNT).then_some(Self {
            group,
            member: (place % GROUP_BYTES / STAND_IN_BYTES) as usize,
            plus: place % STAND_IN_BYTES,
            bytes,
        })
    }

    /// The offset of what is loaded in its structure, bytes; `None` if the kernel does not have
    /// the member. The verifier never reaches such a load.
    fn offset(self, offsets: &Offsets) -> Option<u32> {
        let offset = offsets.words().get(self.member).copied()?;
        (offset != ABSENT).then(|| offset + self.plus)
    }
}

/// The runs by which a kernel's members are copied that an object loads.
///
/// # Errors
/// When the members of a group lie so that its copy has no room for them.
pub fn runs(object: &[u8], offsets: &Offsets) -> Result<Runs> {
    let mut words: [BTreeMap<u32, u32>; group::COUNT] = Default::default();
    for load in object
        .chunks_exact(size_of::<Instruction>())
        .filter_map(Load::of)
    {
        if let Some(from) = load.offset(offsets) {
            let first = from / WORD * WORD;
            let end = (from + load.bytes).next_multiple_of(WORD);
            let known = words[load.group].entry(first).or_default();
            *known = end.max(*known);
        }
    }
    let mut runs = [Run::default(); group::ALL_RUNS];
    for group in group::SINGLE + 1..group::COUNT {
        let places = &mut runs[group::FIRST_RUN[group]..][..group::RUNS[group]];
        let found = (0..=GAP / WORD)
            .rev()
            .map(|words_between| joined(&words[group], words_between * WORD))
            .find(|it| it.len() <= places.len() && copied(it) <= group::COPY_BYTES[group] as u32);
        let found = found.ok_or_else(|| {
            exit::Error::kernel("this kernel's members lie where the programs can't copy them")
        })?;
        places[..found.len()].copy_from_slice(&found);
    }
    Ok(runs)
}

/// Joins words, by their first byte and their end, to runs with at most `gap` bytes in between.
fn joined(words: &BTreeMap<u32, u32>, gap: u32) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (&from, &end) in words {
        match runs.last_mut() {
            Some(last) if from <= last.from + last.bytes + gap => {
                last.bytes = last.bytes.max(end - last.from);
            }
            last => {
                let to = last.map_or(0, |it| it.to + it.bytes);
                runs.push(Run {
                    from,
                    to,
                    bytes: end - from,
                });
            }
        }
    }
    runs
}

/// Number of bytes that runs copy.
fn copied(runs: &[Run]) -> u32 {
    runs.last().map_or(0, |it| it.to + it.bytes)
}

/// Replaces the offsets that stand for members in an object.
///
/// # Errors
/// When a member lies beyond what an instruction can reach, or in no run of its group.
pub fn put(object: &mut [u8], config: &Config) -> Result<()> {
    // Sections of instructions begin at a multiple of their size.
    for instruction in object.chunks_exact_mut(size_of::<Instruction>()) {
        let Some(load) = Load::of(instruction) else {
            continue;
        };
        let offset = load.offset(&config.offsets);
        let place = match offset {
            Some(offset) if load.group != group::SINGLE && config.types.rdonly_cast == ABSENT => {
                place_in_copy(load, offset, &config.runs).context("a member is not copied")?
            }
            offset => offset.unwrap_or_default(),
        };
        let place = i16::try_from(place)
            .map_err(|_too_far| exit::Error::kernel("a member of this kernel lies too far away"))?;
        instruction[2..4].copy_from_slice(&place.to_le_bytes());
    }
    Ok(())
}

/// The offset in the copy of what lies at an offset in the structure.
fn place_in_copy(load: Load, offset: u32, runs: &Runs) -> Option<u32> {
    let runs = &runs[group::FIRST_RUN[load.group]..][..group::RUNS[load.group]];
    let holds = |run: &&Run| offset >= run.from && offset + load.bytes <= run.from + run.bytes;
    let run = runs.iter().find(holds)?;
    Some(offset - run.from + run.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::btf::KernelTypes;
    use crate::kernel::object::OBJECT;
    use kaprobe_ebpf::config::{Types, stand_in};

    fn load(code: u8, offset: u32) -> Instruction {
        let [low, high, ..] = offset.to_le_bytes();
        [code, 0x10, low, high, 0, 0, 0, 0]
    }

    fn run(from: u32, to: u32, bytes: u32) -> Run {
        Run { from, to, bytes }
    }

    fn loads(object: &[u8]) -> impl Iterator<Item = Load> {
        object
            .chunks_exact(size_of::<Instruction>())
            .filter_map(Load::of)
    }

    #[test]
    fn words_are_joined_across_small_gaps() {
        let check = |words: &[(u32, u32)], gap, expected: &[Run]| {
            let words = words.iter().copied().collect();
            assert_eq!(joined(&words, gap), expected, "{words:?}");
        };
        check(&[], 64, &[]);
        check(&[(0, 8)], 64, &[run(0, 0, 8)]);
        check(&[(0, 8), (8, 16)], 0, &[run(0, 0, 16)]);
        check(&[(0, 8), (16, 24)], 0, &[run(0, 0, 8), run(16, 8, 8)]);
        check(&[(0, 8), (16, 24)], 8, &[run(0, 0, 24)]);
        check(
            &[(8, 24), (16, 24), (96, 104)],
            64,
            &[run(8, 0, 16), run(96, 16, 8)],
        );
        check(&[(8, 32), (16, 24), (96, 104)], 64, &[run(8, 0, 96)]);
    }

    #[test]
    fn a_load_gets_the_offset_in_the_structure_or_in_the_copy() -> Result<()> {
        // The second and the fourth offset, which are `timer_expires` and `timer_function`.
        let object: Vec<u8> = [
            load(0x79, stand_in(group::EXIT, 4)),
            load(0x71, stand_in(group::EXIT, 12)),
            load(0x79, stand_in(group::SINGLE, 4) + 8),
            load(0x79, stand_in(group::EXIT, 8)),
            load(0x79, 0x6b00),
        ]
        .concat();
        let mut config = Config::EMPTY;
        config.offsets.timer_expires = 432;
        config.offsets.timer_function = 819;
        config.offsets.timer_pprev = ABSENT;
        let mut check = |rdonly_cast, expected: [u32; 4]| -> Result<()> {
            config.types = Types {
                rdonly_cast,
                ..Types::ABSENT
            };
            config.runs = runs(&object, &config.offsets)?;
            let mut placed = object.clone();
            put(&mut placed, &config)?;
            let [a, b, c, d] = expected;
            let expected = [load(0x79, a), load(0x71, b), load(0x79, c), load(0x79, d)];
            assert_eq!(placed[..32], expected.concat());
            assert_eq!(placed[32..], object[32..]);
            Ok(())
        };
        check(7, [432, 819, 440, 0])?;
        check(ABSENT, [0, 11, 440, 0])
    }

    #[test]
    fn what_an_instruction_cannot_reach_is_an_error() {
        let mut object = load(0x79, stand_in(group::SINGLE, 0)).to_vec();
        let mut config = Config::EMPTY;
        config.offsets.timer = 1 << 15;
        assert!(put(&mut object, &config).is_err());
    }

    /// Without it, a program would load from another place than the one that was meant.
    #[test]
    fn the_object_has_loads_of_every_group_and_no_other_use_of_their_offsets() {
        let mut groups = [0; group::COUNT];
        for load in loads(OBJECT) {
            assert!(load.member < size_of::<Offsets>() / 4);
            groups[load.group] += 1;
        }
        assert!(groups.iter().all(|&loads| loads != 0), "{groups:?}");
    }

    #[test]
    fn this_kernels_members_can_be_copied() -> Result<()> {
        let Ok(types) = KernelTypes::read() else {
            println!("skipped: this kernel has no BTF");
            return Ok(());
        };
        let mut config = Config::EMPTY;
        config.offsets = types.offsets()?;
        config.types = Types::ABSENT;
        config.runs = runs(OBJECT, &config.offsets)?;
        let mut object = OBJECT.to_vec();
        put(&mut object, &config)?;
        assert_eq!(loads(&object).count(), 0);
        Ok(())
    }
}
