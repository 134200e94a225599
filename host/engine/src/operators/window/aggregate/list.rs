//! `collect` and `count-distinct`: the accumulator is a list of values, in order of arrival.
//!
//! A list is a value of keyed state, so it is bounded by the size of such a value (1 MiB); beyond it the job fails and names the key.
//! Every batch that touches a group copies its list once.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, ListArray, cast::AsArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef};
use arrow_select::interleave::interleave;
use hashbrown::HashTable;
use millstream_model::{
    Batch,
    key::{check_key_type, encode_keys},
};

use super::{BuiltIn, Grouping, NoResult};

/// Every value of a column, nulls included, in order of arrival.
#[derive(Debug)]
pub struct Collect {
    column: usize,
    item: FieldRef,
}

impl Collect {
    /// The values of column `column`.
    pub fn new(column: usize, data_type: &DataType, nullable: bool) -> Self {
        Self { column, item: Arc::new(Field::new("item", data_type.clone(), nullable)) }
    }

    /// The lists `into` after each item was appended to that of its group; a null list is an empty one.
    ///
    /// # Panics
    /// `into` is no list, or of another type than `items`.
    pub fn append(into: &ArrayRef, items: &ArrayRef, group_of_item: &[u32]) -> ArrayRef {
        let into = into.as_list();
        let DataType::List(item) = into.data_type() else { unreachable!("an array of lists has the type of one") };
        let mut lists = Lists::of(into);
        group_of_item.iter().enumerate().for_each(|(number, &group)| lists.append(group as usize, number));
        lists.build(item, items)
    }
}

impl BuiltIn for Collect {
    fn accumulator_type(&self) -> DataType {
        DataType::List(Arc::clone(&self.item))
    }

    fn output(&self) -> (DataType, bool) {
        (self.accumulator_type(), false)
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        let mut lists = Lists::of(accumulators.as_list());
        grouping.for_each(|row, group| lists.append(group, row));
        lists.build(&self.item, batch.column(self.column))
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        let mut lists = Lists::of(into.as_list());
        for_each_item(other.as_list(), into_of_other, |item, group| lists.append(group, item));
        lists.build(&self.item, other.as_list::<i32>().values())
    }

    fn finish(&self, accumulators: &ArrayRef, _without: &mut Vec<NoResult>) -> ArrayRef {
        let lists = accumulators.as_list::<i32>();
        // A group whose every accumulator was null has no items: an empty list, not null.
        if lists.null_count() == 0 { Arc::clone(accumulators) } else { Lists::of(lists).build(&self.item, lists.values()) }
    }
}

/// The number of distinct values of a column, exactly; nulls do not count. The accumulator is the list of values.
#[derive(Debug)]
pub struct CountDistinct {
    column: usize,
    item: FieldRef,
}

impl CountDistinct {
    /// The distinct values of column `column`; none if its type has no equality (lists, maps).
    pub fn new(column: usize, data_type: &DataType) -> Option<Self> {
        check_key_type(data_type).ok()?;
        Some(Self { column, item: Arc::new(Field::new("item", data_type.clone(), false)) })
    }

    /// Adds the values that their groups do not hold yet; `values_to_groups` calls back with (value, group).
    fn add(&self, into: &ListArray, values: &ArrayRef, values_to_groups: impl FnOnce(&mut dyn FnMut(usize, usize))) -> ArrayRef {
        let encode = |array: &ArrayRef| {
            encode_keys(std::slice::from_ref(array), array.len()).expect("the type was checked when the job was planned")
        };
        let (held, offered) = (encode(into.values()), encode(values));
        // Entries: (group, whether held, number in its array).
        let mut table: HashTable<(u32, bool, u32)> = HashTable::with_capacity(into.values().len() + values.len());
        let hash_of = |group: u32, hash: u64| hash ^ u64::from(group).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key_of = |is_held: bool, index: u32| if is_held { held.key(index as usize) } else { offered.key(index as usize) };
        let rehash = |&(group, is_held, index): &(u32, bool, u32)| {
            hash_of(group, if is_held { held.hashes()[index as usize] } else { offered.hashes()[index as usize] })
        };
        let identity: Vec<u32> = (0..into.len() as u32).collect();
        for_each_item(into, &identity, |item, group| {
            let group = group as u32;
            table.insert_unique(hash_of(group, held.hashes()[item]), (group, true, item as u32), rehash);
        });
        let mut lists = Lists::of(into);
        values_to_groups(&mut |row, group| {
            let (hash, number) = (hash_of(group as u32, offered.hashes()[row]), group as u32);
            let same = |&(group, is_held, index): &(u32, bool, u32)| group == number && key_of(is_held, index) == offered.key(row);
            if table.find(hash, same).is_none() {
                table.insert_unique(hash, (number, false, row as u32), rehash);
                lists.append(group, row);
            }
        });
        lists.build(&self.item, values)
    }
}

impl BuiltIn for CountDistinct {
    fn accumulator_type(&self) -> DataType {
        DataType::List(Arc::clone(&self.item))
    }

    fn output(&self) -> (DataType, bool) {
        (DataType::Int64, false)
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        let values = batch.column(self.column);
        let nulls = values.logical_nulls();
        self.add(accumulators.as_list(), values, |offer| grouping.for_each_valid(nulls.as_ref(), offer))
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        let other = other.as_list::<i32>();
        self.add(into.as_list(), other.values(), |offer| for_each_item(other, into_of_other, offer))
    }

    fn finish(&self, accumulators: &ArrayRef, _without: &mut Vec<NoResult>) -> ArrayRef {
        let lists = accumulators.as_list::<i32>();
        let lengths = (0..lists.len()).map(|group| if lists.is_null(group) { 0 } else { i64::from(lists.value_length(group)) });
        Arc::new(lengths.collect::<Int64Array>())
    }
}

/// Calls `each(item, group)` for the items of every list that is not null; `group_of_list` says where each list belongs.
fn for_each_item(lists: &ListArray, group_of_list: &[u32], mut each: impl FnMut(usize, usize)) {
    let offsets = lists.value_offsets();
    for (list, &group) in group_of_list.iter().enumerate() {
        if lists.is_valid(list) {
            (offsets[list]..offsets[list + 1]).for_each(|item| each(item as usize, group as usize));
        }
    }
}

/// Lists to which items are appended, group by group.
struct Lists<'a> {
    into: &'a ListArray,
    appended: Vec<(u32, u32)>,
}

impl<'a> Lists<'a> {
    fn of(into: &'a ListArray) -> Self {
        Self { into, appended: Vec::new() }
    }

    fn append(&mut self, group: usize, item: usize) {
        self.appended.push((group as u32, item as u32));
    }

    /// The lists with what was appended, which are items of `items`.
    fn build(mut self, item: &FieldRef, items: &ArrayRef) -> ArrayRef {
        // Stable, so that items of a group stay in order of arrival.
        self.appended.sort_by_key(|(group, _)| *group);
        let mut appended = self.appended.iter().peekable();
        let offsets_before = self.into.value_offsets();
        let mut places = Vec::with_capacity(self.into.values().len() + self.appended.len());
        let mut offsets = Vec::with_capacity(self.into.len() + 1);
        offsets.push(0_i32);
        for group in 0..self.into.len() {
            if self.into.is_valid(group) {
                places.extend((offsets_before[group]..offsets_before[group + 1]).map(|held| (0, held as usize)));
            }
            while let Some((_, item)) = appended.next_if(|(of, _)| *of as usize == group) {
                places.push((1, *item as usize));
            }
            offsets.push(i32::try_from(places.len()).expect("a batch of lists has less than 2^31 items, state is bounded per key"));
        }
        let values = interleave(&[self.into.values().as_ref(), items.as_ref()], &places).expect("both hold items of the same type");
        let no_nulls: Option<NullBuffer> = None;
        Arc::new(ListArray::new(Arc::clone(item), OffsetBuffer::new(ScalarBuffer::from(offsets)), values, no_nulls))
    }
}
