//! Fixed-width values inside the rows of the key table: which words and bits of a record hold which column.
//!
//! # A record (words of 64 bits)
//! ```text
//! word 0        bits 0..8   flags (see `values`)
//!               bits 8..32  one per nullable field, depth first: set = the field is null
//!               bits 32..64 checkpoint generation of the last change
//! word 1        only with a time to live: when it was last refreshed, ms since epoch
//! then          the leaves, widest first, each aligned to its width; Boolean takes a byte, Decimal128 two words
//! ```
//! An absent value has zeros everywhere, so gathering need not look at presence.

use arrow_array::{Array, ArrayRef, cast::AsArray, make_array};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow_data::ArrayDataBuilder;
use arrow_schema::{DataType, Field};

use crate::{Slot, table::Rows};

/// First bit of the nulls in word 0.
const NULLS_SHIFT: u32 = 8;
/// Number of nullable fields that word 0 can tell apart.
const NULLS_MAX: u32 = 24;
/// Records that would be larger are stored as boxed rows instead.
const LEAF_WORDS_MAX: usize = 16;

/// Where the leaves of a value lie in its record.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: Node,
    words: usize,
}

#[derive(Clone, Debug)]
struct Node {
    data_type: DataType,
    /// The bit of word 0 that says it is null; none: it is not nullable.
    null: Option<u32>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// A leaf: its first word, the bit in it where it starts, its width in bytes.
    Leaf {
        word: usize,
        shift: u32,
        width: usize,
    },
    Struct(Vec<Node>),
}

/// Records to gather from or scatter to: record i starts at word `offset` of the row of `slots[i]`.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub slots: &'a [Slot],
    pub offset: usize,
}

impl Records<'_> {
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Word `word` of record `at`.
    #[inline(always)]
    pub fn word(&self, rows: &Rows, at: usize, word: usize) -> u64 {
        rows.row(self.slots[at].0)[self.offset + word]
    }

    #[inline(always)]
    fn word_mut<'r>(&self, rows: &'r mut Rows, at: usize, word: usize) -> &'r mut u64 {
        &mut rows.row_mut(self.slots[at].0)[self.offset + word]
    }
}

impl Layout {
    /// The layout of values of this type behind `head_words`; none: it has parts of variable width, or too many.
    pub fn new(data_type: &DataType, head_words: usize) -> Option<Self> {
        let mut widths = Vec::new();
        leaf_widths(data_type, &mut widths)?;
        let mut places = place_leaves(&widths, head_words);
        let words = head_words + widths.iter().sum::<usize>().div_ceil(8);
        if words > head_words + LEAF_WORDS_MAX {
            return None;
        }
        let mut nulls = 0;
        let root = Node::new(data_type, None, &mut nulls, &mut places);
        (nulls <= NULLS_MAX).then_some(Self { root, words })
    }

    /// Words of a record, its head included.
    pub fn words(&self) -> usize {
        self.words
    }

    /// The values of the records as a column; `heads`: their first words; `present`: which are not null.
    pub fn gather(&self, rows: &Rows, records: Records<'_>, heads: &[u64], present: Option<NullBuffer>) -> ArrayRef {
        self.root.gather(rows, records, heads, present)
    }

    /// Writes the value at `value_of(i)` of `values` into record i; null (at any level) writes zeros. Null bits must be zero before.
    pub fn scatter(&self, rows: &mut Rows, records: Records<'_>, values: &ArrayRef) {
        self.root.scatter(rows, records, values);
    }
}

/// The widths of all leaves, depth first.
fn leaf_widths(data_type: &DataType, widths: &mut Vec<usize>) -> Option<()> {
    match data_type {
        DataType::Struct(fields) => fields.iter().try_for_each(|field| leaf_widths(field.data_type(), widths)),
        DataType::Boolean => {
            widths.push(1);
            Some(())
        }
        other => {
            let width = other.primitive_width().filter(|width| matches!(width, 1 | 2 | 4 | 8 | 16))?;
            widths.push(width);
            Some(())
        }
    }
}

/// Byte offsets of the leaves, as an iterator depth first; widest first, so each is aligned without a gap.
fn place_leaves(widths: &[usize], head_words: usize) -> std::vec::IntoIter<usize> {
    let mut places = vec![0; widths.len()];
    let mut next = head_words * 8;
    for wanted in [16, 8, 4, 2, 1] {
        for (place, _) in places.iter_mut().zip(widths).filter(|(_, width)| **width == wanted) {
            *place = next;
            next += wanted;
        }
    }
    places.into_iter()
}

impl Node {
    fn new(data_type: &DataType, field: Option<&Field>, nulls: &mut u32, places: &mut std::vec::IntoIter<usize>) -> Self {
        let null = field.is_some_and(Field::is_nullable).then(|| {
            *nulls += 1;
            NULLS_SHIFT + *nulls - 1
        });
        let place = match data_type {
            DataType::Struct(fields) => {
                Place::Struct(fields.iter().map(|field| Self::new(field.data_type(), Some(field), nulls, places)).collect())
            }
            other => {
                let at = places.next().expect("every leaf was placed");
                Place::Leaf { word: at / 8, shift: (at % 8) as u32 * 8, width: other.primitive_width().unwrap_or(1) }
            }
        };
        Self { data_type: data_type.clone(), null, place }
    }

    fn gather(&self, rows: &Rows, records: Records<'_>, heads: &[u64], present: Option<NullBuffer>) -> ArrayRef {
        let builder = ArrayDataBuilder::new(self.data_type.clone()).len(records.len()).nulls(present);
        let builder = match &self.place {
            Place::Leaf { word, shift, width } => builder.add_buffer(gather_leaf(&self.data_type, rows, records, (*word, *shift, *width))),
            Place::Struct(fields) => {
                let columns = fields.iter().map(|field| field.gather(rows, records, heads, field.valid(heads)).to_data());
                builder.child_data(columns.collect())
            }
        };
        make_array(builder.build().expect("buffers were made for this type and length"))
    }

    /// Which records have a value in this field; none: all.
    fn valid(&self, heads: &[u64]) -> Option<NullBuffer> {
        let bit = self.null?;
        let valid = NullBuffer::new(BooleanBuffer::collect_bool(heads.len(), |at| heads[at] >> bit & 1 == 0));
        (valid.null_count() > 0).then_some(valid)
    }

    fn scatter(&self, rows: &mut Rows, records: Records<'_>, values: &ArrayRef) {
        if let (Some(bit), Some(nulls)) = (self.null, values.nulls()) {
            (0..records.len()).filter(|&at| nulls.is_null(at)).for_each(|at| *records.word_mut(rows, at, 0) |= 1 << bit);
        }
        match &self.place {
            Place::Leaf { word, shift, width } => scatter_leaf(rows, records, values, (*word, *shift, *width)),
            Place::Struct(fields) => {
                fields.iter().zip(values.as_struct().columns()).for_each(|(field, column)| field.scatter(rows, records, column))
            }
        }
    }
}

/// Word, shift and width of a leaf.
type LeafPlace = (usize, u32, usize);

fn gather_leaf(data_type: &DataType, rows: &Rows, records: Records<'_>, (word, shift, width): LeafPlace) -> Buffer {
    let read = |at: usize| records.word(rows, at, word) >> shift;
    let all = 0..records.len();
    match width {
        1 if *data_type == DataType::Boolean => BooleanBuffer::collect_bool(records.len(), |at| read(at) & 1 == 1).into_inner(),
        1 => Buffer::from_vec(all.map(|at| read(at) as u8).collect()),
        2 => Buffer::from_vec(all.map(|at| read(at) as u16).collect()),
        4 => Buffer::from_vec(all.map(|at| read(at) as u32).collect()),
        8 => Buffer::from_vec(all.map(read).collect::<Vec<u64>>()),
        _ => Buffer::from_vec(all.map(|at| read(at) as u128 | u128::from(records.word(rows, at, word + 1)) << 64).collect()),
    }
}

fn scatter_leaf(rows: &mut Rows, records: Records<'_>, values: &ArrayRef, (word, shift, width): LeafPlace) {
    let nulls = values.nulls().filter(|nulls| nulls.null_count() > 0);
    let present = |at: usize| nulls.is_none_or(|nulls| nulls.is_valid(at));
    if *values.data_type() == DataType::Boolean {
        let values = values.as_boolean();
        return narrow(rows, records, (word, shift, width), |at| u64::from(present(at) && values.value(at)));
    }
    let data = values.to_data();
    let (buffer, range) = (&data.buffers()[0], data.offset()..data.offset() + data.len());
    match width {
        1 => {
            let values = &buffer.typed_data::<u8>()[range];
            narrow(rows, records, (word, shift, width), |at| if present(at) { u64::from(values[at]) } else { 0 });
        }
        2 => {
            let values = &buffer.typed_data::<u16>()[range];
            narrow(rows, records, (word, shift, width), |at| if present(at) { u64::from(values[at]) } else { 0 });
        }
        4 => {
            let values = &buffer.typed_data::<u32>()[range];
            narrow(rows, records, (word, shift, width), |at| if present(at) { u64::from(values[at]) } else { 0 });
        }
        8 => {
            let values = &buffer.typed_data::<u64>()[range];
            (0..records.len()).for_each(|at| *records.word_mut(rows, at, word) = if present(at) { values[at] } else { 0 });
        }
        _ => {
            let values = &buffer.typed_data::<u128>()[range];
            for (at, &value) in values.iter().enumerate() {
                let value = if present(at) { value } else { 0 };
                *records.word_mut(rows, at, word) = value as u64;
                *records.word_mut(rows, at, word + 1) = (value >> 64) as u64;
            }
        }
    }
}

/// Writes a leaf that shares its word with others.
fn narrow(rows: &mut Rows, records: Records<'_>, (word, shift, width): LeafPlace, value: impl Fn(usize) -> u64) {
    let mask = !(((1_u64 << (8 * width)) - 1) << shift);
    for at in 0..records.len() {
        let target = records.word_mut(rows, at, word);
        *target = *target & mask | value(at) << shift;
    }
}
