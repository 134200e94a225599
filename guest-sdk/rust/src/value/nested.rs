//! Lists, lists of a fixed size, and maps. Structs are made by `#[derive(Row)]`.

use std::collections::BTreeMap;

use super::{Buffers, ColumnBuilder, Malformed, ReadValue, Value, text::offset, text::take_offsets, write_field, write_item};

/// A type that `Vec` makes a `List` of: every [`Value`] but `u8`, since `Vec<u8>` is `Binary`.
pub trait ListItem: Value {}

macro_rules! list_items {
    ($([$($generics:tt)*] $type:ty;)*) => {$( impl<$($generics)*> ListItem for $type {} )*};
}

list_items! {
    [] bool; [] i8; [] i16; [] i32; [] i64; [] u16; [] u32; [] u64; [] f32; [] f64;
    [] String; ['a] &'a str; ['a] &'a [u8]; [const N: usize] [u8; N];
    [const P: u8, const S: i8] super::Decimal<P, S>;
    [U: super::Unit, Z: super::Zone] super::Timestamp<U, Z>;
    [U: super::Unit] super::Duration<U>; [U: super::TimeOfDayUnit] super::Time<U>;
    [] super::Date; [] super::Date64;
    [T: Value] Option<T>; [T: ListItem] Vec<T>; [] Vec<u8>;
    [T: Value, const N: usize] FixedList<T, N>; [K: Value + Ord, V: Value] BTreeMap<K, V>;
}

/// A column of lists.
pub struct ListReader<'a, R> {
    offsets: &'a [[u8; 4]],
    items: R,
}

/// Makes a column of lists.
pub struct ListBuilder<B> {
    offsets: Vec<[u8; 4]>,
    items: B,
    items_length: usize,
}

impl<B: Default> Default for ListBuilder<B> {
    fn default() -> Self {
        Self { offsets: Vec::new(), items: B::default(), items_length: 0 }
    }
}

impl<B> ListBuilder<B> {
    /// Ends a row whose `count` items were appended to the items.
    fn close(&mut self, count: usize) {
        if self.offsets.is_empty() {
            self.offsets.push([0; 4]);
        }
        self.items_length += count;
        self.offsets.push((self.items_length as u32).to_le_bytes());
    }
}

impl<B: ColumnBuilder> ListBuilder<B> {
    fn truncate_to(&mut self, rows: usize) {
        if rows + 1 < self.offsets.len() {
            self.items_length = offset(&self.offsets, rows);
            self.items.truncate(self.items_length);
            self.offsets.truncate(rows + 1);
        }
    }

    /// The buffers of the list itself; those of the items follow.
    fn finish_offsets(mut self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) -> B {
        if self.offsets.is_empty() {
            self.offsets.push([0; 4]);
        }
        buffers.extend([validity, self.offsets.into_flattened()]);
        self.items
    }
}

impl<B: ColumnBuilder> ColumnBuilder for ListBuilder<B> {
    fn reserve(&mut self, rows: usize) {
        self.offsets.reserve(rows + 1);
        self.items.reserve(rows);
    }

    fn append_null(&mut self) {
        self.close(0);
    }

    fn truncate(&mut self, rows: usize) {
        self.truncate_to(rows);
    }

    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        self.finish_offsets(validity, buffers).finish(Vec::new(), buffers);
    }
}

impl<T: ListItem> Value for Vec<T> {
    type Builder = ListBuilder<T::Builder>;

    fn write_type(text: &mut String) {
        text.push_str("List(");
        write_item::<T>(text);
        text.push(')');
    }

    fn append(&self, builder: &mut Self::Builder) {
        self.iter().for_each(|item| item.append(&mut builder.items));
        builder.close(self.len());
    }

    fn duplicate(&self) -> Self {
        self.iter().map(T::duplicate).collect()
    }
}

impl<'a, T: ListItem + ReadValue<'a>> ReadValue<'a> for Vec<T> {
    type Reader = ListReader<'a, T::Reader>;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        let (offsets, end) = take_offsets(buffers, length)?;
        Ok(ListReader { offsets, items: T::reader(buffers, end)? })
    }

    fn get(reader: &Self::Reader, row: usize) -> Self {
        (offset(reader.offsets, row)..offset(reader.offsets, row + 1)).map(|index| T::get(&reader.items, index)).collect()
    }

    fn same(&self, reader: &Self::Reader, row: usize) -> bool {
        let stored = offset(reader.offsets, row)..offset(reader.offsets, row + 1);
        stored.len() == self.len() && stored.zip(self).all(|(index, item)| item.same(&reader.items, index))
    }
}

/// A list of exactly `N` items: `FixedSizeList(N x T)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FixedList<T, const N: usize>(
    /// The items.
    pub [T; N],
);

impl<T: Default, const N: usize> Default for FixedList<T, N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

/// A column of lists of `N` items.
pub struct FixedListReader<R>(R);

/// Makes a column of lists of `N` items.
#[derive(Default)]
pub struct FixedListBuilder<B, const N: usize>(B);

impl<B: ColumnBuilder, const N: usize> ColumnBuilder for FixedListBuilder<B, N> {
    fn reserve(&mut self, rows: usize) {
        self.0.reserve(rows * N);
    }

    fn append_null(&mut self) {
        (0..N).for_each(|_| self.0.append_null());
    }

    fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows * N);
    }

    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        buffers.push(validity);
        self.0.finish(Vec::new(), buffers);
    }
}

impl<T: Value, const N: usize> Value for FixedList<T, N> {
    type Builder = FixedListBuilder<T::Builder, N>;

    fn write_type(text: &mut String) {
        text.push_str(&format!("FixedSizeList({N} x "));
        write_item::<T>(text);
        text.push(')');
    }

    fn append(&self, builder: &mut Self::Builder) {
        self.0.iter().for_each(|item| item.append(&mut builder.0));
    }

    fn duplicate(&self) -> Self {
        Self(self.0.each_ref().map(T::duplicate))
    }
}

impl<'a, T: ReadValue<'a>, const N: usize> ReadValue<'a> for FixedList<T, N> {
    type Reader = FixedListReader<T::Reader>;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        let items = length.checked_mul(N).ok_or(Malformed("a list is too long"))?;
        T::reader(buffers, items).map(FixedListReader)
    }

    fn get(reader: &Self::Reader, row: usize) -> Self {
        Self(std::array::from_fn(|item| T::get(&reader.0, row * N + item)))
    }

    fn same(&self, reader: &Self::Reader, row: usize) -> bool {
        self.0.iter().enumerate().all(|(item, value)| value.same(&reader.0, row * N + item))
    }
}

/// A column of maps.
pub struct MapReader<'a, K, V> {
    offsets: &'a [[u8; 4]],
    keys: K,
    values: V,
}

/// The entries of a column of maps: a struct of key and value.
#[derive(Default)]
pub struct Entries<K, V> {
    keys: K,
    values: V,
}

impl<K: ColumnBuilder, V: ColumnBuilder> ColumnBuilder for Entries<K, V> {
    fn reserve(&mut self, rows: usize) {
        self.keys.reserve(rows);
        self.values.reserve(rows);
    }

    fn append_null(&mut self) {
        self.keys.append_null();
        self.values.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        self.keys.truncate(rows);
        self.values.truncate(rows);
    }

    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        buffers.push(validity);
        self.keys.finish(Vec::new(), buffers);
        self.values.finish(Vec::new(), buffers);
    }
}

/// Makes a column of maps.
pub type MapBuilder<K, V> = ListBuilder<Entries<K, V>>;

impl<K: Value + Ord, V: Value> Value for BTreeMap<K, V> {
    type Builder = MapBuilder<K::Builder, V::Builder>;

    fn write_type(text: &mut String) {
        text.push_str("Map(\"entries\": non-null Struct(");
        write_field::<K>("key", text);
        text.push_str(", ");
        write_field::<V>("value", text);
        text.push_str("), unsorted)");
    }

    fn append(&self, builder: &mut Self::Builder) {
        for (key, value) in self {
            key.append(&mut builder.items.keys);
            value.append(&mut builder.items.values);
        }
        builder.close(self.len());
    }

    fn duplicate(&self) -> Self {
        self.iter().map(|(key, value)| (key.duplicate(), value.duplicate())).collect()
    }
}

impl<'a, K: ReadValue<'a> + Ord, V: ReadValue<'a>> ReadValue<'a> for BTreeMap<K, V> {
    type Reader = MapReader<'a, K::Reader, V::Reader>;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        let (offsets, end) = take_offsets(buffers, length)?;
        buffers.take()?;
        Ok(MapReader { offsets, keys: K::reader(buffers, end)?, values: V::reader(buffers, end)? })
    }

    fn get(reader: &Self::Reader, row: usize) -> Self {
        let entries = offset(reader.offsets, row)..offset(reader.offsets, row + 1);
        entries.map(|entry| (K::get(&reader.keys, entry), V::get(&reader.values, entry))).collect()
    }

    fn same(&self, reader: &Self::Reader, row: usize) -> bool {
        let entries = offset(reader.offsets, row)..offset(reader.offsets, row + 1);
        let equal = |(entry, (key, value)): (usize, (&K, &V))| key.same(&reader.keys, entry) && value.same(&reader.values, entry);
        entries.len() == self.len() && entries.zip(self).all(equal)
    }
}
