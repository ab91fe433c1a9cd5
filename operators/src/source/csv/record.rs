//! From the fields of a row to a record, by serde.

use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::BorrowedStrDeserializer,
};

use super::{super::error::SourceError, super::lines::Reject, field::Field, row::Row};

/// The columns of a file.
pub(super) struct Table {
    origin: String,
    names: Vec<String>,
    header: bool,
}

impl Table {
    pub(super) fn new(origin: String, names: Vec<String>, header: bool) -> Self {
        Self { origin, names, header }
    }

    /// Number of columns.
    #[inline]
    pub(super) fn columns(&self) -> usize {
        self.names.len()
    }
}

/// What is kept between rows.
pub(super) struct RowContext {
    nulls: Vec<Box<str>>,
    /// The fields of the struct that `wanted` was made for.
    fields: &'static [&'static str],
    /// The columns that the struct has fields for.
    wanted: Vec<(usize, &'static str)>,
}

impl RowContext {
    pub(super) fn new(nulls: Vec<Box<str>>) -> Self {
        Self { nulls, fields: &[], wanted: Vec::new() }
    }

    /// The next row is of another file.
    pub(super) fn forget_columns(&mut self) {
        self.fields = &[];
        self.wanted.clear();
    }

    /// Makes a record of a row.
    #[inline]
    pub(super) fn decode<T: DeserializeOwned>(&mut self, row: Row<'_>, table: &Table) -> Result<T, Reject> {
        T::deserialize(RowDeserializer { row, table, context: self }).map_err(|error| error.reject(table))
    }

    fn find_columns(&mut self, fields: &'static [&'static str], table: &Table) {
        self.fields = fields;
        let columns = table.names.iter().enumerate();
        let find = |name: &String| fields.iter().find(|field| *field == name).copied();
        self.wanted = columns.filter_map(|(at, name)| Some((at, find(name)?))).collect();
    }
}

/// Why a row is no record.
#[derive(Debug)]
pub(super) struct DecodeError(Box<Reason>);

#[derive(Debug)]
struct Reason {
    message: String,
    column: Option<String>,
    /// It holds for every row of the file.
    of_table: bool,
}

impl DecodeError {
    #[cold]
    pub(super) fn new(message: String, of_table: bool) -> Self {
        Self(Box::new(Reason { message, column: None, of_table }))
    }

    #[cold]
    fn in_column(mut self, name: &str) -> Self {
        self.0.column.get_or_insert_with(|| name.into());
        self
    }

    #[cold]
    fn reject(self, table: &Table) -> Reject {
        if !self.0.of_table {
            return Reject::Record(self.to_string());
        }
        Reject::Input(SourceError::Mismatch {
            origin: table.origin.clone(),
            reason: self.to_string(),
            columns: table.names.join(", "),
        })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = &self.0.column {
            write!(formatter, "column `{column}`: ")?;
        }
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::new(message.to_string(), false)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("there is no column `{field}`"), true)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("there are two columns for `{field}`"), true)
    }
}

/// A row as a struct, map, tuple or sequence.
struct RowDeserializer<'de, 'c> {
    row: Row<'de>,
    table: &'c Table,
    context: &'c mut RowContext,
}

impl<'de> RowDeserializer<'de, '_> {
    fn visit_columns<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let nulls = &self.context.nulls;
        visitor.visit_seq(Columns { row: self.row, names: &self.table.names, nulls, at: 0 })
    }
}

impl<'de> Deserializer<'de> for RowDeserializer<'de, '_> {
    type Error = DecodeError;

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if !self.table.header {
            return self.visit_columns(visitor);
        }
        if !std::ptr::eq(self.context.fields, fields) {
            self.context.find_columns(fields, self.table);
        }
        let context = self.context;
        visitor.visit_map(WantedColumns {
            row: self.row,
            wanted: &context.wanted,
            nulls: &context.nulls,
            at: 0,
        })
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if !self.table.header {
            return self.visit_columns(visitor);
        }
        let nulls = &self.context.nulls;
        visitor.visit_map(NamedColumns(Columns { row: self.row, names: &self.table.names, nulls, at: 0 }))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.visit_columns(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _size: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.visit_columns(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _size: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.visit_columns(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct map enum identifier ignored_any
    }
}

/// The columns that a struct has fields for, by the fields' names.
struct WantedColumns<'de, 'c> {
    row: Row<'de>,
    wanted: &'c [(usize, &'static str)],
    nulls: &'c [Box<str>],
    at: usize,
}

impl<'de> MapAccess<'de> for WantedColumns<'de, '_> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        match self.wanted.get(self.at) {
            Some((_, name)) => seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let (column, name) = self.wanted[self.at];
        self.at += 1;
        let field = Field { text: self.row.field(column), nulls: self.nulls };
        seed.deserialize(field).map_err(|error| error.in_column(name))
    }
}

/// All columns in their order.
struct Columns<'de, 'c> {
    row: Row<'de>,
    names: &'c [String],
    nulls: &'c [Box<str>],
    at: usize,
}

impl<'de> SeqAccess<'de> for Columns<'de, '_> {
    type Error = DecodeError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DecodeError> {
        if self.at == self.row.len() {
            return Ok(None);
        }
        let at = self.at;
        self.at += 1;
        let field = Field { text: self.row.field(at), nulls: self.nulls };
        seed.deserialize(field).map(Some).map_err(|error| error.in_column(&(at + 1).to_string()))
    }
}

/// All columns by name.
struct NamedColumns<'de, 'c>(Columns<'de, 'c>);

impl<'de> MapAccess<'de> for NamedColumns<'de, '_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(name) = self.0.names.get(self.0.at) else { return Ok(None) };
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DecodeError> {
        let at = self.0.at;
        self.0.at += 1;
        let field = Field { text: self.0.row.field(at), nulls: self.0.nulls };
        seed.deserialize(field).map_err(|error| error.in_column(&self.0.names[at]))
    }
}
