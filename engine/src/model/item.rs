//! What flows through a fused chain: records by value, or records read in place in the batch that brought them.

use std::marker::PhantomData;

use rkyv::Archived;
use tidemill_storage::record::{Record, restore};

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

    /// Shows the record as its own type, copying it out of the batch first if it is read in place.
    fn with_native<R>(item: &Self::Ref<'_>, show: impl FnOnce(&Self::Native) -> R) -> R;

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
    fn view<'r>(item: &'r T) -> &'r T {
        item
    }

    #[inline(always)]
    fn with_native<R>(item: &T, show: impl FnOnce(&T) -> R) -> R {
        show(item)
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
    fn with_native<R>(item: &&Archived<T>, show: impl FnOnce(&T) -> R) -> R {
        show(&restore(*item))
    }

    #[inline]
    fn into_native(item: &Archived<T>) -> T {
        restore(item)
    }
}
