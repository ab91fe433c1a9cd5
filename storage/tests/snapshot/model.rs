//! A store without tables: makes up what a real one would seal, and knows what must come back.

#[path = "random.rs"]
mod random;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::PathBuf,
    sync::Arc,
};

use random::{Die, sized_record};
use tidemill_storage::{
    key::key_group,
    log::{
        block::Block,
        seal::{
            BlockId, Layout, RemovedKeys, Sealed, SealedRange, StateDeclaration, TableDeclaration, TableId,
        },
    },
    snapshot::{
        disk::Disk,
        restore::{Parts, Piece},
    },
    state::{Slice, StateError, StateId, StateName},
};

/// Number of key groups in all tests.
pub const GROUPS: u32 = 16;

/// Contents by state, slice and key: the narrow states map to the value's bytes, the wide ones as well.
pub type Contents = BTreeMap<(String, Slice), BTreeMap<(u64, Vec<u8>), Vec<u8>>>;

#[derive(Clone, Debug)]
struct Table {
    id: TableId,
    state: usize,
    slice: Slice,
    /// Value, and the block of the newest record.
    values: BTreeMap<(u64, Vec<u8>), (Vec<u8>, BlockId)>,
    /// Live records of each block.
    blocks: BTreeMap<BlockId, usize>,
}

pub struct Model {
    pub die: Die,
    groups: Range<u32>,
    seal: u64,
    next_table: u64,
    next_block: u64,
    tables: Vec<Table>,
}

pub fn name(state: usize) -> StateName {
    StateName::new("count", ["narrow", "wide"][state])
}

fn layout(state: usize) -> Layout {
    match state {
        0 => Layout::Stride { stride: 24, value_at: 8, value_len: 16 },
        _ => Layout::Sized { narrow: false, align: 8 },
    }
}

impl Model {
    pub fn new(seed: u64, groups: Range<u32>) -> Self {
        let die = Die(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { die, groups, seal: 0, next_table: 1, next_block: 1, tables: Vec::new() }
    }

    pub fn contents(&self) -> Contents {
        let plain = |table: &Table| {
            let values = table.values.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
            ((name(table.state).state, table.slice), values.collect())
        };
        self.tables.iter().map(plain).collect()
    }

    /// Changes up to this many keys per table, makes and drops tables, and seals.
    pub fn seal(&mut self, changes: u64) -> (u64, Sealed) {
        self.seal += 1;
        let mut sealed = Sealed::default();
        if self.seal == 1 {
            sealed.states = (0..2)
                .map(|state| StateDeclaration {
                    id: StateId(state as u32),
                    name: name(state),
                    keys: ["u64", "String"][state].into(),
                    values: "bytes".into(),
                    layout: layout(state),
                })
                .collect();
        }
        if self.tables.len() < 2 || (self.tables.len() < 6 && self.die.roll(3) == 0) {
            self.add_table(&mut sealed);
        }
        if self.tables.len() > 3 && self.die.roll(4) == 0 {
            let at = self.die.roll(self.tables.len() as u64) as usize;
            sealed.dropped.push(self.tables.remove(at).id);
        }
        for at in 0..self.tables.len() {
            let mut table = self.tables[at].clone();
            self.change(&mut table, changes, &mut sealed);
            self.tables[at] = table;
        }
        (self.seal, sealed)
    }

    fn add_table(&mut self, sealed: &mut Sealed) {
        let (id, state) = (TableId(self.next_table), (self.next_table % 2) as usize);
        self.next_table += 1;
        let slice = self.next_table as i64 - 4;
        sealed.tables.push(TableDeclaration { table: id, state: StateId(state as u32), slice });
        let (values, blocks) = (BTreeMap::new(), BTreeMap::new());
        self.tables.push(Table { id, state, slice, values, blocks });
    }

    fn key(&mut self, state: usize) -> (u64, Vec<u8>) {
        loop {
            let small = self.die.roll(60);
            let hash = small.wrapping_mul(0xd134_2543_de82_ef95);
            if self.groups.contains(&key_group(hash, GROUPS)) {
                let bytes = if state == 0 { Vec::new() } else { vec![b'k'; 1 + small as usize % 9] };
                return (hash, bytes);
            }
        }
    }

    fn change(&mut self, table: &mut Table, changes: u64, sealed: &mut Sealed) {
        let (mut puts, mut removed) = (BTreeMap::new(), BTreeSet::new());
        for _ in 0..self.die.roll(changes + 1) {
            let key = self.key(table.state);
            if table.values.contains_key(&key) && self.die.roll(4) == 0 {
                puts.remove(&key);
                removed.insert(key);
            } else {
                let length = if table.state == 0 { 16 } else { self.die.roll(40) as usize };
                let fill = self.die.roll(256) as u8;
                puts.insert(key, vec![fill; length]);
            }
        }
        let block = BlockId(self.next_block);
        let mut freed = BTreeSet::new();
        for key in removed.iter().chain(puts.keys()) {
            if let Some((_, old)) = table.values.remove(key) {
                let live = table.blocks.get_mut(&old).unwrap();
                *live -= 1;
                if *live == 0 {
                    table.blocks.remove(&old);
                    freed.insert(old);
                }
            }
        }
        sealed.freed.extend(freed.into_iter().map(|block| (table.id, block)));
        if !removed.is_empty() {
            let mut keys = Vec::new();
            for (hash, bytes) in &removed {
                keys.extend(hash.to_le_bytes());
                keys.extend((bytes.len() as u32).to_le_bytes());
                keys.extend(bytes);
            }
            sealed.removed.push(RemovedKeys { table: table.id, keys });
        }
        if !puts.is_empty() {
            self.next_block += 1;
            // Ranges rarely begin where their block does.
            let from = 48 * self.die.roll(4) as u32;
            let mut bytes = vec![0xee; from as usize];
            for ((hash, key), value) in &puts {
                match table.state {
                    0 => {
                        bytes.extend(hash.to_le_bytes());
                        bytes.extend(value);
                    }
                    _ => bytes.extend(sized_record(*hash, key, value)),
                }
            }
            let (memory, to) = (Arc::new(Block::holding(&bytes)), bytes.len() as u32);
            sealed.ranges.push(SealedRange { table: table.id, block, memory, from, to });
            table.blocks.insert(block, puts.len());
            table.values.extend(puts.into_iter().map(|(key, value)| (key, (value, block))));
        }
        sealed.live.push((table.id, table.values.len() as u64));
    }
}

/// Reads all of these parts, keeping what belongs to the key groups.
pub fn restore(
    disk: &Arc<dyn Disk>,
    manifests: &[PathBuf],
    groups: Range<u32>,
) -> Result<Contents, StateError> {
    let parts = Parts::open(Arc::clone(disk), manifests, groups.clone())?;
    let mut all = Contents::new();
    for state in 0..2 {
        for slice in parts.slices(&name(state)) {
            assert_eq!(parts.state(&name(state)).unwrap().layout, layout(state));
            let mut reader = parts.reader(&name(state), slice);
            let table = all.entry((name(state).state, slice)).or_default();
            while let Some(piece) = reader.next_piece()? {
                apply(piece, state, table);
            }
            let live = parts.live_keys(&name(state), slice);
            assert_eq!(table.len() as u64, live);
            table.retain(|(hash, _), _| groups.contains(&key_group(*hash, GROUPS)));
        }
    }
    Ok(all)
}

fn number(bytes: &[u8]) -> u64 {
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number)
}

fn apply(piece: Piece<'_>, state: usize, table: &mut BTreeMap<(u64, Vec<u8>), Vec<u8>>) {
    match piece {
        Piece::Removed(mut keys) => {
            while !keys.is_empty() {
                let length = number(&keys[8..12]) as usize;
                table.remove(&(number(&keys[..8]), keys[12..12 + length].to_vec()));
                keys = &keys[12 + length..];
            }
        }
        Piece::Records(bytes) if state == 0 => {
            for record in bytes.chunks_exact(24) {
                table.insert((number(&record[..8]), Vec::new()), record[8..].to_vec());
            }
        }
        Piece::Records(mut bytes) => {
            while !bytes.is_empty() {
                let (size, value) = (number(&bytes[8..11]) as usize * 16, number(&bytes[12..16]) as usize);
                let key = bytes[18..18 + number(&bytes[16..18]) as usize].to_vec();
                let at = (18 + key.len()).next_multiple_of(8);
                table.insert((number(&bytes[..8]), key), bytes[at..at + value].to_vec());
                bytes = &bytes[size..];
            }
        }
    }
}
