//! What flows through a fused chain: records by value, or records read in place in the batch that brought them.

use std::marker::PhantomData;

use rkyv::{Archived, rancor};
use tidemill_storage::{
    record::{Record, WriteAs, archived_in, restore, with_archived},
    writer::RecordWriter,
};

use super::time::Timestamp;
use crate::runtime::exchange::batch::{Batch, RecordKey};

/// The kind of item that flows between two fused operators.
///
/// Before an exchange items are values ([`Owned`]); behind one they are references into the batch's
/// bytes ([`InPlace`]). Operators are generic over the kind, so `map` is written once for both.
pub trait Item: 'static {
    /// The record type.
    type Native: 'static;
    /// What is handed from operator to operator.
    type Ref<'a>;
    /// What predicates and key extractors look at.
    type View: ?Sized;

    /// Borrows the item to look at it.
    fn view<'r>(item: &'r Self::Ref<'_>) -> &'r Self::View;

    /// Gives the record by value: moves it, or copies it out of the batch.
    fn into_native(item: Self::Ref<'_>) -> Self::Native;
}

/// Records by value.
pub struct Owned<T>(PhantomData<T>);

impl<T: 'static> Item for Owned<T> {
    type Native = T;
    type Ref<'a> = T;
    type View = T;

    #[inline(always)]
    fn view(item: &T) -> &T {
        item
    }

    #[inline(always)]
    fn into_native(item: T) -> T {
        item
    }
}

/// Records read in place: `&Archived<T>`.
pub struct InPlace<T>(PhantomData<T>);

impl<T: Record> Item for InPlace<T> {
    type Native = T;
    type Ref<'a> = &'a Archived<T>;
    type View = Archived<T>;

    #[inline(always)]
    fn view<'r>(item: &'r &Archived<T>) -> &'r Archived<T> {
        item
    }

    #[inline]
    fn into_native(item: &Archived<T>) -> T {
        restore(item)
    }
}

/// Values of type `V` that are archived as records `T`: a view such as `BidRef<'static>`, whose text is borrowed, crosses
/// an exchange as a `Bid` without ever owning it.
pub struct ViewAs<V, T>(PhantomData<(V, T)>);

impl<V: 'static, T: Record> Item for ViewAs<V, T> {
    type Native = V;
    type Ref<'a> = V;
    type View = V;

    #[inline(always)]
    fn view(item: &V) -> &V {
        item
    }

    #[inline(always)]
    fn into_native(item: V) -> V {
        item
    }
}

/// A value that knows the key by which it is exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed<T> {
    /// The key's hash.
    pub hash: u64,
    /// The key's bytes if it is wide, else none.
    pub key: Vec<u8>,
    /// The value.
    pub value: T,
}

/// Values that know their keys; a [`Keyed<T>`] crosses an exchange as a `T`.
pub struct WithKey<T>(PhantomData<T>);

impl<T: Record> Item for WithKey<T> {
    type Native = Keyed<T>;
    type Ref<'a> = Keyed<T>;
    type View = Keyed<T>;

    #[inline(always)]
    fn view(item: &Keyed<T>) -> &Keyed<T> {
        item
    }

    #[inline(always)]
    fn into_native(item: Keyed<T>) -> Keyed<T> {
        item
    }
}

/// Items that can cross an exchange.
pub trait Ship: Item {
    /// What they are on the other side.
    type Record: Record;

    /// Archives one into a batch, with its columns; returns whether that has to be sent now.
    ///
    /// # Errors
    /// When a field cannot be serialized; the batch is as before.
    fn put(
        item: &Self::Ref<'_>,
        batch: &mut Batch<Self::Record>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error>;

    /// Lends what one would be on the other side: in place where it has those bytes, else archived into `scratch`.
    ///
    /// # Errors
    /// When a field cannot be serialized.
    fn lend<R>(
        item: &Self::Ref<'_>,
        scratch: &mut RecordWriter,
        look: impl FnOnce(&Archived<Self::Record>) -> R,
    ) -> Result<R, rancor::Error>;
}

impl<T: Record> Ship for Owned<T> {
    type Record = T;

    #[inline(always)]
    fn put(
        item: &T,
        batch: &mut Batch<T>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error> {
        batch.put(item, timestamp, key)
    }

    #[inline(always)]
    fn lend<R>(
        item: &T,
        scratch: &mut RecordWriter,
        look: impl FnOnce(&Archived<T>) -> R,
    ) -> Result<R, rancor::Error> {
        if T::PLAIN { Ok(with_archived(item, look)) } else { archived_in(item, scratch).map(look) }
    }
}

impl<T: Record> Ship for InPlace<T> {
    type Record = T;

    #[inline]
    fn put(
        item: &&Archived<T>,
        batch: &mut Batch<T>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error> {
        batch.put(&restore(*item), timestamp, key)
    }

    #[inline(always)]
    fn lend<R>(
        item: &&Archived<T>,
        _scratch: &mut RecordWriter,
        look: impl FnOnce(&Archived<T>) -> R,
    ) -> Result<R, rancor::Error> {
        Ok(look(item))
    }
}

impl<V: WriteAs<T> + 'static, T: Record> Ship for ViewAs<V, T> {
    type Record = T;

    #[inline(always)]
    fn put(
        item: &V,
        batch: &mut Batch<T>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error> {
        batch.put_view(item, timestamp, key)
    }

    #[inline(always)]
    fn lend<R>(
        item: &V,
        scratch: &mut RecordWriter,
        look: impl FnOnce(&Archived<T>) -> R,
    ) -> Result<R, rancor::Error> {
        archived_in(item, scratch).map(look)
    }
}

impl<T: Record> Ship for WithKey<T> {
    type Record = T;

    #[inline(always)]
    fn put(
        item: &Keyed<T>,
        batch: &mut Batch<T>,
        timestamp: Timestamp,
        key: RecordKey<'_>,
    ) -> Result<bool, rancor::Error> {
        batch.put(&item.value, timestamp, key)
    }

    #[inline(always)]
    fn lend<R>(
        item: &Keyed<T>,
        scratch: &mut RecordWriter,
        look: impl FnOnce(&Archived<T>) -> R,
    ) -> Result<R, rancor::Error> {
        <Owned<T> as Ship>::lend(&item.value, scratch, look)
    }
}
