//! Descriptors: a state's name, types, time to live and migrations in one place, to be opened on any backend.
//!
//! A name stays the same for the life of the job's state; within an operator each state has its own. A `migrate_from`
//! reads values that were stored as another type; several may be given, for several old versions. They are used by the
//! backend when it meets such a value, which may be long after opening.

use std::rc::Rc;

use crate::{
    key::Key,
    record::Record,
    state::{Migration, StateBackend, StateError, StateName},
};

use super::{
    aggregating::{Aggregate, AggregatingState},
    list::ListState,
    map::{MapEntry, MapState},
    page::{self, Page},
    reducing::ReducingState,
    ttl::{Stamped, TtlConfig},
    ttl_list::TtlListState,
    ttl_map::TtlMapState,
    ttl_value::TtlValueState,
    value::ValueState,
};

/// Describes a [`ValueState`].
///
/// ```
/// use tidemill_storage::{
///     kinds::{descriptor::ValueStateDescriptor, ttl::TtlConfig},
///     state::memory::MemoryBackend,
/// };
///
/// let mut backend = MemoryBackend::default();
/// let clicks = ValueStateDescriptor::<u64>::new("clicks").migrate_from(|old: u32| u64::from(old));
/// let mut state = clicks.with_ttl(TtlConfig::new(60_000)).open::<String, _>(&mut backend, "sessions")?;
/// # assert!(state.is_empty());
/// # Ok::<(), tidemill_storage::state::StateError>(())
/// ```
pub struct ValueStateDescriptor<V> {
    name: String,
    migrations: Vec<Migration<V>>,
    stamped: Vec<Migration<Stamped<V>>>,
}

impl<V: Record> ValueStateDescriptor<V> {
    /// A state of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), migrations: Vec::new(), stamped: Vec::new() }
    }

    /// Reads values that were stored as `Old` by `migrate`.
    #[must_use]
    pub fn migrate_from<Old: Record>(mut self, migrate: impl Fn(Old) -> V + 'static) -> Self {
        let migrate = Rc::new(migrate);
        let stamped = Rc::clone(&migrate);
        self.migrations.push(Migration::new::<Old>(move |old| migrate(old)));
        self.stamped.push(Migration::new::<Stamped<Old>>(move |(old, stamp)| (stamped(old), stamp)));
        self
    }

    /// Lets values expire.
    #[must_use]
    pub fn with_ttl(self, ttl: TtlConfig) -> TtlValueStateDescriptor<V> {
        TtlValueStateDescriptor { descriptor: self, ttl }
    }

    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<ValueState<K, V, B>, StateError> {
        ValueState::open(backend, StateName::new(operator_id, self.name), self.migrations)
    }
}

/// Describes a [`TtlValueState`].
pub struct TtlValueStateDescriptor<V> {
    descriptor: ValueStateDescriptor<V>,
    ttl: TtlConfig,
}

impl<V: Record> TtlValueStateDescriptor<V> {
    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<TtlValueState<K, V, B>, StateError> {
        let Self { descriptor, ttl } = self;
        TtlValueState::open(backend, StateName::new(operator_id, descriptor.name), descriptor.stamped, ttl)
    }
}

/// Describes a [`ListState`].
pub struct ListStateDescriptor<T> {
    name: String,
    migrations: Vec<Migration<Page<T>>>,
    stamped: Vec<Migration<Page<Stamped<T>>>>,
}

impl<T: Record> ListStateDescriptor<T> {
    /// A state of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), migrations: Vec::new(), stamped: Vec::new() }
    }

    /// Reads elements that were stored as `Old` by `migrate`.
    #[must_use]
    pub fn migrate_from<Old: Record>(mut self, migrate: impl Fn(Old) -> T + 'static) -> Self {
        let migrate = Rc::new(migrate);
        let stamped = Rc::clone(&migrate);
        self.migrations.push(page::migration::<Old, T>(move |old| migrate(old)));
        self.stamped.push(page::migration::<Stamped<Old>, _>(move |(old, stamp)| (stamped(old), stamp)));
        self
    }

    /// Lets each element expire.
    #[must_use]
    pub fn with_ttl(self, ttl: TtlConfig) -> TtlListStateDescriptor<T> {
        TtlListStateDescriptor { descriptor: self, ttl }
    }

    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<ListState<K, T, B>, StateError> {
        ListState::open(backend, StateName::new(operator_id, self.name), self.migrations)
    }
}

/// Describes a [`TtlListState`].
pub struct TtlListStateDescriptor<T> {
    descriptor: ListStateDescriptor<T>,
    ttl: TtlConfig,
}

impl<T: Record> TtlListStateDescriptor<T> {
    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<TtlListState<K, T, B>, StateError> {
        let Self { descriptor, ttl } = self;
        TtlListState::open(backend, StateName::new(operator_id, descriptor.name), descriptor.stamped, ttl)
    }
}

/// Describes a [`MapState`] of values `V` by map keys `M`.
pub struct MapStateDescriptor<M, V> {
    name: String,
    migrations: Vec<Migration<MapEntry<V>>>,
    stamped: Vec<Migration<MapEntry<Stamped<V>>>>,
    map_keys: std::marker::PhantomData<fn() -> M>,
}

impl<M: Key, V: Record> MapStateDescriptor<M, V> {
    /// A state of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            migrations: Vec::new(),
            stamped: Vec::new(),
            map_keys: std::marker::PhantomData,
        }
    }

    /// Reads values that were stored as `Old` by `migrate`. Map keys keep their type.
    #[must_use]
    pub fn migrate_from<Old: Record>(mut self, migrate: impl Fn(Old) -> V + 'static) -> Self {
        let migrate = Rc::new(migrate);
        let stamped = Rc::clone(&migrate);
        self.migrations.push(Migration::new::<MapEntry<Old>>(move |(old, at)| (migrate(old), at)));
        self.stamped.push(Migration::new::<MapEntry<Stamped<Old>>>(move |((old, stamp), at)| {
            ((stamped(old), stamp), at)
        }));
        self
    }

    /// Lets each entry expire.
    #[must_use]
    pub fn with_ttl(self, ttl: TtlConfig) -> TtlMapStateDescriptor<M, V> {
        TtlMapStateDescriptor { descriptor: self, ttl }
    }

    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<MapState<K, M, V, B>, StateError> {
        MapState::open(backend, StateName::new(operator_id, self.name), self.migrations)
    }
}

/// Describes a [`TtlMapState`].
pub struct TtlMapStateDescriptor<M, V> {
    descriptor: MapStateDescriptor<M, V>,
    ttl: TtlConfig,
}

impl<M: Key, V: Record> TtlMapStateDescriptor<M, V> {
    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<TtlMapState<K, M, V, B>, StateError> {
        let Self { descriptor, ttl } = self;
        TtlMapState::open(backend, StateName::new(operator_id, descriptor.name), descriptor.stamped, ttl)
    }
}

/// Describes a [`ReducingState`] with the function `F`.
pub struct ReducingStateDescriptor<V, F> {
    name: String,
    migrations: Vec<Migration<V>>,
    reduce: F,
}

impl<V: Record, F: Fn(&V, &V) -> V> ReducingStateDescriptor<V, F> {
    /// A state of this name, whose values are combined by `reduce`.
    pub fn new(name: impl Into<String>, reduce: F) -> Self {
        Self { name: name.into(), migrations: Vec::new(), reduce }
    }

    /// Reads values that were stored as `Old` by `migrate`.
    #[must_use]
    pub fn migrate_from<Old: Record>(mut self, migrate: impl Fn(Old) -> V + 'static) -> Self {
        self.migrations.push(Migration::new::<Old>(migrate));
        self
    }

    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<ReducingState<K, V, B, F>, StateError> {
        ReducingState::open(backend, StateName::new(operator_id, self.name), self.migrations, self.reduce)
    }
}

/// Describes an [`AggregatingState`].
pub struct AggregatingStateDescriptor<A: Aggregate> {
    name: String,
    migrations: Vec<Migration<A::Accumulator>>,
    aggregate: A,
}

impl<A: Aggregate> AggregatingStateDescriptor<A> {
    /// A state of this name, to whose accumulators `aggregate` adds.
    pub fn new(name: impl Into<String>, aggregate: A) -> Self {
        Self { name: name.into(), migrations: Vec::new(), aggregate }
    }

    /// Reads accumulators that were stored as `Old` by `migrate`.
    #[must_use]
    pub fn migrate_from<Old: Record>(mut self, migrate: impl Fn(Old) -> A::Accumulator + 'static) -> Self {
        self.migrations.push(Migration::new::<Old>(migrate));
        self
    }

    /// Opens the state of an operator.
    ///
    /// # Errors
    /// As [`StateBackend::open`].
    pub fn open<K: Key, B: StateBackend>(
        self,
        backend: &mut B,
        operator_id: &str,
    ) -> Result<AggregatingState<K, A, B>, StateError> {
        let name = StateName::new(operator_id, self.name);
        AggregatingState::open(backend, name, self.migrations, self.aggregate)
    }
}
