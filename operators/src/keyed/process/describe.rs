//! What a state is opened by: its name, or a descriptor with a time to live or migrations.

use tidemill_storage::{
    key::Key,
    kinds::descriptor::{
        ListStateDescriptor, MapStateDescriptor, TtlListStateDescriptor, TtlMapStateDescriptor,
        TtlValueStateDescriptor, ValueStateDescriptor,
    },
    record::Record,
    state::StateError,
};

use super::{
    expiring::{Lists, Maps, Values},
    states::{ListState, MapState, ValueState},
};
use crate::backend::JobBackend;

/// Describes a state that the handle `H` names.
pub trait Describe<H> {
    /// The state of keys `K`.
    type State<K: Key>;

    /// Opens it for an operator.
    ///
    /// # Errors
    /// When it was stored with another type, and when the name is taken.
    fn open<K: Key>(self, backend: &mut JobBackend, operator: &str) -> Result<Self::State<K>, StateError>;
}

/// `descriptor<parameters> => the handle, the state, and which of its variants`.
macro_rules! describe {
    ($($descriptor:ty[$($type:ident: $bound:ident),+] => $handle:ty, $state:ident<$($of:ident),+>::$variant:ident;)*) => {$(
        impl<$($type: $bound),+> Describe<$handle> for $descriptor {
            type State<K: Key> = $state<K, $($of),+>;

            fn open<K: Key>(
                self,
                backend: &mut JobBackend,
                operator: &str,
            ) -> Result<Self::State<K>, StateError> {
                <$descriptor>::open::<K, _>(self, backend, operator).map($state::$variant)
            }
        }
    )*};
}

describe! {
    ValueStateDescriptor<V>[V: Record] => ValueState<V>, Values<V>::Lasting;
    TtlValueStateDescriptor<V>[V: Record] => ValueState<V>, Values<V>::Expiring;
    ListStateDescriptor<T>[T: Record] => ListState<T>, Lists<T>::Lasting;
    TtlListStateDescriptor<T>[T: Record] => ListState<T>, Lists<T>::Expiring;
    MapStateDescriptor<M, V>[M: Key, V: Record] => MapState<M, V>, Maps<M, V>::Lasting;
    TtlMapStateDescriptor<M, V>[M: Key, V: Record] => MapState<M, V>, Maps<M, V>::Expiring;
}

/// A name alone: for ever, and with no older type.
macro_rules! describe_by_name {
    ($($descriptor:ident[$($type:ident: $bound:ident),+] => $handle:ty, $state:ident;)*) => {$(
        impl<$($type: $bound),+> Describe<$handle> for &str {
            type State<K: Key> = $state<K, $($type),+>;

            fn open<K: Key>(
                self,
                backend: &mut JobBackend,
                operator: &str,
            ) -> Result<Self::State<K>, StateError> {
                Describe::<$handle>::open::<K>($descriptor::<$($type),+>::new(self), backend, operator)
            }
        }
    )*};
}

describe_by_name! {
    ValueStateDescriptor[V: Record] => ValueState<V>, Values;
    ListStateDescriptor[T: Record] => ListState<T>, Lists;
    MapStateDescriptor[M: Key, V: Record] => MapState<M, V>, Maps;
}
