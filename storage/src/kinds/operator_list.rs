//! [`OperatorListState`]: a list per subtask that belongs to no key; the positions of a source's splits, for example.
//!
//! In memory, and one blob of a snapshot per subtask. When the job is restored with another parallelism the elements of
//! all subtasks are dealt out again, as [`Redistribution`] says.

use crate::{
    record::Record,
    state::{StateError, StateName},
};

use super::blob::{self, BlobTypes};

const KIND: &str = "operator list";

/// Who gets which elements after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redistribution {
    /// Each element goes to one subtask: they are dealt out one by one, in order.
    Split,
    /// All elements go to every subtask, which takes what it needs.
    Union,
}

/// A list per subtask that belongs to no key.
///
/// ```
/// use tidemill_storage::{
///     kinds::operator_list::{OperatorListState, Redistribution},
///     state::StateName,
/// };
///
/// let name = StateName::new("source", "splits");
/// let before = [vec![1_u64, 2, 3], vec![4, 5]];
/// let blobs: Vec<Vec<u8>> = before
///     .into_iter()
///     .map(|splits| OperatorListState::from(splits).to_bytes())
///     .collect::<Result<_, _>>()?;
/// let second_of_three = OperatorListState::<u64>::restore(&name, &blobs, Redistribution::Split, 1, 3)?;
/// assert_eq!(second_of_three.elements(), [2, 5]);
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
#[derive(Clone, Debug)]
pub struct OperatorListState<T> {
    elements: Vec<T>,
}

impl<T> Default for OperatorListState<T> {
    fn default() -> Self {
        Self { elements: Vec::new() }
    }
}

impl<T> From<Vec<T>> for OperatorListState<T> {
    fn from(elements: Vec<T>) -> Self {
        Self { elements }
    }
}

impl<T: Record> OperatorListState<T> {
    /// The elements, in order.
    pub fn elements(&self) -> &[T] {
        &self.elements
    }

    /// Appends an element.
    pub fn add(&mut self, element: T) {
        self.elements.push(element);
    }

    /// Appends elements.
    pub fn add_all(&mut self, elements: impl IntoIterator<Item = T>) {
        self.elements.extend(elements);
    }

    /// Replaces all elements.
    pub fn replace(&mut self, elements: Vec<T>) {
        self.elements = elements;
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        self.elements.clear();
    }

    /// The blob of a snapshot.
    ///
    /// # Errors
    /// When an element cannot be archived or is too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let entries = self.elements.iter().map(|element| (&[][..], element));
        blob::write(BlobTypes { kind: KIND, keys: "" }, entries)
    }

    /// What [`to_bytes`](Self::to_bytes) has written.
    ///
    /// # Errors
    /// When it was written with another type, or is damaged or of a newer version.
    pub fn from_bytes(name: &StateName, bytes: &[u8]) -> Result<Self, StateError> {
        let entries = blob::read::<T>(name, BlobTypes { kind: KIND, keys: "" }, bytes)?;
        Ok(Self { elements: entries.into_iter().map(|(_, element)| element).collect() })
    }

    /// What `subtask` of `parallelism` gets of the blobs of all subtasks before, in the order of the subtasks.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn restore(
        name: &StateName,
        blobs: &[impl AsRef<[u8]>],
        redistribution: Redistribution,
        subtask: u32,
        parallelism: u32,
    ) -> Result<Self, StateError> {
        debug_assert!(subtask < parallelism, "subtask {subtask} of {parallelism}");
        let mut elements = Vec::new();
        for blob in blobs {
            elements.extend(Self::from_bytes(name, blob.as_ref())?.elements);
        }
        if redistribution == Redistribution::Split {
            elements = elements.into_iter().skip(subtask as usize).step_by(parallelism as usize).collect();
        }
        Ok(Self { elements })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn split_deals_each_element_once_and_evenly_and_union_gives_all(
            before in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..9), 0..5),
            parallelism in 1..7_u32,
        ) {
            let name = StateName::new("op", "state");
            let blobs: Vec<Vec<u8>> =
                before.iter().map(|own| OperatorListState::from(own.clone()).to_bytes().unwrap()).collect();
            let mut all = before.concat();
            let restore = |redistribution, subtask| {
                OperatorListState::<u64>::restore(&name, &blobs, redistribution, subtask, parallelism).unwrap()
            };
            let mut dealt = Vec::new();
            for subtask in 0..parallelism {
                let union = restore(Redistribution::Union, subtask);
                prop_assert_eq!(union.elements(), &all);
                let own = restore(Redistribution::Split, subtask);
                prop_assert!(own.elements().len().abs_diff(all.len() / parallelism as usize) <= 1);
                dealt.extend_from_slice(own.elements());
            }
            all.sort_unstable();
            dealt.sort_unstable();
            prop_assert_eq!(dealt, all);
        }
    }

    #[test]
    fn another_type_or_kind_is_named() {
        let name = StateName::new("source", "splits");
        let bytes = OperatorListState::from(vec![1_u64]).to_bytes().unwrap();
        let error = OperatorListState::<String>::from_bytes(&name, &bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "state `splits` of operator `source` was stored with values `u64` and is opened with `String`; open it \
             with the stored type, register a migration from it, or give the new state another name"
        );
        let error =
            super::super::broadcast::BroadcastState::<u8, u64>::from_bytes(&name, &bytes).unwrap_err();
        assert!(error.to_string().contains("kind `operator list`"), "{error}");
    }
}
