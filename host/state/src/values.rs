//! Value states: one typed value per key, in the rows of the key table.
//!
//! Values of fixed width lie in the row itself (`layout`); others are boxed rows (`row`), one box per slot. The head of a record has these flags:
//! *present* (there is a value), *known* (memory is right; otherwise the disk must be asked), *changed* (memory is newer than the disk, unless
//! the generation of the change is on disk by now), *stored* (the disk may hold a value, so a deletion must be written).

mod copied;

use std::{ops::ControlFlow, sync::Arc};

use arrow_array::{Array, ArrayRef};
use arrow_buffer::{BooleanBuffer, NullBuffer};
use arrow_schema::DataType;
use millstream_model::{
    key::{EncodedKeys, KeyGroup},
    state::{StateDescriptor, Ttl, TtlRefresh},
};

pub(crate) use copied::{Copied, CopiedRecords, RecordForm};

use crate::{
    Error, NEVER_REFRESHED, Slot, VALUE_BYTES_MAX,
    collections::successor,
    generation::{Cursor, Generations, SLICE_BYTES, StoredEntry},
    layout::{Layout, Records},
    rocks::{Disk, is_over},
    row::{self, RowDecoder, RowEncoder, split_stored},
    store::PAGE,
    table::KeyTable,
};

const PRESENT: u64 = 1;
const KNOWN: u64 = 2;
const CHANGED: u64 = 4;
const STORED: u64 = 8;
/// The bits of the head that say which fields are null.
const NULL_BITS: u64 = 0xffff_ff00;
/// Slots whose values are encoded together for a snapshot.
const OWED_TOGETHER: u32 = 64;
/// What allocating a box costs beside its bytes, roughly.
const BOX_OVERHEAD: usize = 16;

/// One value state.
pub(crate) struct ValueState {
    pub descriptor: StateDescriptor,
    /// First two bytes of its keys on disk.
    pub prefix: u16,
    /// Its place in the order of snapshots.
    pub part: usize,
    /// All versions of the type that rows may have been written with, the present one last.
    pub versions: Vec<(u32, DataType)>,
    /// First word of the record in a row.
    offset: usize,
    words: usize,
    form: Form,
}

enum Form {
    Fixed(Arc<RecordForm>),
    /// By slot: varint version, body; empty if there is no value.
    Boxed {
        cells: Vec<Box<[u8]>>,
        bytes: usize,
    },
}

/// What the operations of a value state work on besides it.
pub(crate) struct Context<'a> {
    pub table: &'a mut KeyTable,
    pub generations: &'a mut Generations,
    pub disk: Option<&'a Disk>,
    /// What the clock of the state's time to live shows.
    pub now: Option<i64>,
}

/// What reading all values works on.
pub(crate) struct Reading<'a> {
    pub table: &'a KeyTable,
    pub disk: Option<&'a Disk>,
    /// What the clock of the state's time to live shows.
    pub now: Option<i64>,
    pub only: Option<(&'a [u8], KeyGroup)>,
}

/// New values, checked and encoded: applying them cannot fail.
pub(crate) enum Staged {
    Fixed(ArrayRef),
    Boxed { values: Vec<Option<Box<[u8]>>> },
}

impl ValueState {
    /// A state whose records begin at word `offset` of a row.
    pub fn new(descriptor: StateDescriptor, prefix: u16, part: usize, versions: Vec<(u32, DataType)>, offset: usize) -> Self {
        let head_words = 1 + usize::from(descriptor.ttl.is_some());
        let (form, words) = match Layout::new(&descriptor.value_type, head_words) {
            Some(layout) => {
                let words = layout.words();
                let (version, has_time) = (descriptor.version, descriptor.ttl.is_some());
                (Form::Fixed(Arc::new(RecordForm { prefix, version, has_time, layout })), words)
            }
            None => (Form::Boxed { cells: Vec::new(), bytes: 0 }, head_words),
        };
        Self { descriptor, prefix, part, versions, offset, words, form }
    }

    /// Words of a record.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Memory outside the rows of the table.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Fixed(_) => 0,
            Form::Boxed { cells, bytes } => cells.len() * size_of::<Box<[u8]>>() + bytes,
        }
    }

    /// A new key: without a disk there is nothing to ask for.
    pub fn begin(&self, row: &mut [u64], asks_disk: bool) {
        row[self.offset] = if asks_disk { 0 } else { KNOWN };
    }

    /// Whether a row of the table cannot be dropped without loss.
    pub fn has_state(&self, row: &[u64], generations: &Generations) -> bool {
        let head = row[self.offset];
        head & PRESENT != 0 || head & CHANGED != 0 && !generations.is_durable(generation(head))
    }

    /// New rows of a state that no key had before.
    pub fn begin_everywhere(&mut self, table: &mut KeyTable, asks_disk: bool) {
        self.reserve(table.slots());
        for slot in (0..table.slots() as u32).map(Slot) {
            if !asks_disk && table.is_used(slot.0) && self.head(table, slot) == 0 {
                self.record_mut(table, slot)[0] = KNOWN;
            }
        }
    }

    /// Makes room for the slots of the table.
    pub fn reserve(&mut self, slots: usize) {
        if let Form::Boxed { cells, .. } = &mut self.form
            && cells.len() < slots
        {
            cells.resize_with(slots.max(cells.capacity().min(cells.len() * 2)), Box::default);
        }
    }

    /// The values of the keys; null is absence.
    pub fn load(&mut self, slots: &[Slot], context: &mut Context<'_>) -> Result<ArrayRef, Error> {
        let (heads, flags) = self.heads(slots, context.table);
        if flags & KNOWN != 0 && self.descriptor.ttl.is_none() {
            return self.read_with(slots, context.table, &heads, flags);
        }
        self.fetch_unknown(slots, context)?;
        if let Some(ttl) = self.descriptor.ttl {
            self.keep_time(ttl, slots, context);
        }
        self.read(slots, context.table)
    }

    /// The values in memory.
    pub fn read(&self, slots: &[Slot], table: &KeyTable) -> Result<ArrayRef, Error> {
        let (heads, flags) = self.heads(slots, table);
        self.read_with(slots, table, &heads, flags)
    }

    fn read_with(&self, slots: &[Slot], table: &KeyTable, heads: &[u64], flags: u64) -> Result<ArrayRef, Error> {
        match &self.form {
            Form::Fixed(form) => {
                let present = || NullBuffer::new(BooleanBuffer::collect_bool(heads.len(), |at| heads[at] & PRESENT != 0));
                let records = Records { slots, offset: self.offset };
                Ok(form.layout.gather(&table.rows, records, heads, (flags & PRESENT == 0).then(present)))
            }
            Form::Boxed { cells, .. } => {
                let mut decoder = self.decoder()?;
                for slot in slots {
                    self.decode_cell(&cells[slot.0 as usize], &mut decoder)?;
                }
                decoder.finish().map_err(|damage| self.damaged(&damage))
            }
        }
    }

    fn decode_cell(&self, cell: &[u8], decoder: &mut RowDecoder) -> Result<(), Error> {
        if cell.is_empty() {
            decoder.read_null();
            return Ok(());
        }
        let (version, body) = row::split_version(cell).ok_or_else(|| self.damaged(&"no version"))?;
        decoder.read(version, body).map_err(|damage| self.damaged(&damage))
    }

    fn decoder(&self) -> Result<RowDecoder, Error> {
        let versions = self.versions.iter().map(|(version, data_type)| (*version, data_type));
        RowDecoder::new(versions, &self.descriptor.value_type).map_err(|error| self.damaged(&error))
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Corrupt { of: self.descriptor.name.clone(), reason: reason.to_string() }
    }

    /// The heads of all records, and the flags that all of them have.
    fn heads(&self, slots: &[Slot], table: &KeyTable) -> (Vec<u64>, u64) {
        let mut flags = u64::MAX;
        let head = |&slot: &Slot| {
            let head = self.head(table, slot);
            flags &= head;
            head
        };
        (slots.iter().map(head).collect(), flags)
    }

    #[inline(always)]
    fn head(&self, table: &KeyTable, slot: Slot) -> u64 {
        table.rows.row(slot.0)[self.offset]
    }

    fn record<'a>(&self, table: &'a KeyTable, slot: Slot) -> &'a [u64] {
        &table.rows.row(slot.0)[self.offset..self.offset + self.words]
    }

    #[inline(always)]
    fn record_mut<'a>(&self, table: &'a mut KeyTable, slot: Slot) -> &'a mut [u64] {
        &mut table.rows.row_mut(slot.0)[self.offset..self.offset + self.words]
    }

    /// Asks the disk for the values that memory does not know.
    fn fetch_unknown(&mut self, slots: &[Slot], context: &mut Context<'_>) -> Result<(), Error> {
        let unknown: Vec<Slot> = slots.iter().copied().filter(|&slot| self.head(context.table, slot) & KNOWN == 0).collect();
        let Some(disk) = context.disk.filter(|_| !unknown.is_empty()) else { return Ok(()) };
        let mut wanted: Vec<(Vec<u8>, Slot)> = unknown.iter().map(|&slot| (self.disk_key(slot, context.table), slot)).collect();
        wanted.sort_unstable();
        let (keys, sorted): (Vec<Vec<u8>>, Vec<Slot>) = wanted.into_iter().unzip();
        let mut found = Vec::new();
        disk.get_each(&keys, |number, value| {
            found.push((sorted[number], value.to_vec()));
            Ok(())
        })?;
        for &slot in &unknown {
            self.record_mut(context.table, slot)[0] = KNOWN;
        }
        self.take_in(&found, context.table)
    }

    /// Puts values from the disk into the table.
    fn take_in(&mut self, found: &[(Slot, Vec<u8>)], table: &mut KeyTable) -> Result<(), Error> {
        let mut slots = Vec::with_capacity(found.len());
        let mut decoder = matches!(self.form, Form::Fixed(_)).then(|| self.decoder()).transpose()?;
        for (slot, value) in found {
            let stored = split_stored(value).ok_or_else(|| self.damaged(&"its head"))?;
            let has_time = self.descriptor.ttl.is_some();
            let record = self.record_mut(table, *slot);
            record[0] = PRESENT | KNOWN | STORED;
            if has_time {
                record[1] = stored.refreshed.unwrap_or(NEVER_REFRESHED) as u64;
            }
            match &mut decoder {
                Some(decoder) => decoder.read(stored.version, stored.body).map_err(|damage| self.damaged(&damage))?,
                None => self.set_cell(*slot, stored.versioned.into()),
            }
            slots.push(*slot);
        }
        if let (Some(mut decoder), Form::Fixed(form)) = (decoder, &self.form) {
            let column = decoder.finish().map_err(|damage| self.damaged(&damage))?;
            let records = Records { slots: &slots, offset: self.offset };
            form.layout.scatter(&mut table.rows, records, &column);
        }
        Ok(())
    }

    fn set_cell(&mut self, slot: Slot, value: Box<[u8]>) {
        if let Form::Boxed { cells, bytes } = &mut self.form {
            let cost = |cell: &[u8]| if cell.is_empty() { 0 } else { cell.len() + BOX_OVERHEAD };
            let cell = &mut cells[slot.0 as usize];
            *bytes = *bytes + cost(&value) - cost(cell);
            *cell = value;
        }
    }

    /// `[prefix][group][key]`.
    fn disk_key(&self, slot: Slot, table: &KeyTable) -> Vec<u8> {
        let mut out = vec![0; 4];
        let group = table.key(slot, &mut out);
        out[..2].copy_from_slice(&self.prefix.to_be_bytes());
        out[2..4].copy_from_slice(&group.0.to_be_bytes());
        out
    }

    /// Deletes what is over, and refreshes what is read.
    fn keep_time(&mut self, ttl: Ttl, slots: &[Slot], context: &mut Context<'_>) {
        let (mut over, mut read) = (Vec::new(), Vec::new());
        for &slot in slots {
            let record = self.record(context.table, slot);
            let (head, refreshed) = (record[0], record[1] as i64);
            if head & PRESENT == 0 {
                continue;
            }
            if is_over(ttl, refreshed, context.now) {
                over.push(slot);
            } else if let Some(now) = context.now
                && (refreshed == NEVER_REFRESHED || ttl.refresh == TtlRefresh::OnRead && now > refreshed)
            {
                read.push((slot, now));
            }
        }
        self.delete(&over, context);
        self.copy_owed(read.iter().map(|&(slot, _)| slot), context);
        for (slot, now) in read {
            let head = self.head(context.table, slot);
            let changed = head & NULL_BITS | self.head_of_change(head, context) | PRESENT;
            self.record_mut(context.table, slot)[..2].copy_from_slice(&[changed, now as u64]);
        }
    }

    /// The head of a record that changes now: known, changed, in the current generation; present and nulls are the caller's.
    fn head_of_change(&self, head: u64, context: &Context<'_>) -> u64 {
        let stored = if self.may_be_stored(head, context) { STORED } else { 0 };
        KNOWN | CHANGED | stored | u64::from(context.generations.current()) << 32
    }

    fn may_be_stored(&self, head: u64, context: &Context<'_>) -> bool {
        let asked = head & KNOWN != 0;
        head & STORED != 0
            || !asked && context.disk.is_some_and(Disk::is_open)
            || head & CHANGED != 0 && context.generations.reaches_disk(generation(head))
    }

    /// Checks and encodes new values: everything that can fail, before anything is changed.
    pub fn stage(&self, values: &ArrayRef, hash_of: impl Fn(usize) -> u64) -> Result<Staged, Error> {
        if values.data_type() != &self.descriptor.value_type {
            let (expected, actual) = (self.descriptor.value_type.clone(), values.data_type().clone());
            return Err(Error::WrongType { state: self.descriptor.name.clone(), expected, actual });
        }
        if matches!(self.form, Form::Fixed(_)) {
            return Ok(Staged::Fixed(values.clone()));
        }
        let encoder = RowEncoder::new(values).expect("declared types have a row encoding");
        let mut body = Vec::new();
        let encode = |at: usize| {
            if values.is_null(at) {
                return Ok(None);
            }
            body.clear();
            row::start_version(self.descriptor.version, &mut body);
            encoder.write(at, &mut body);
            check_size(&self.descriptor.name, body.len(), || hash_of(at))?;
            Ok(Some(Box::from(&body[..])))
        };
        Ok(Staged::Boxed { values: (0..values.len()).map(encode).collect::<Result<_, Error>>()? })
    }

    /// Writes staged values, one per slot; null deletes.
    pub fn write(&mut self, slots: &[Slot], staged: Staged, context: &mut Context<'_>) {
        match staged {
            Staged::Fixed(values) => {
                self.copy_owed(slots.iter().copied(), context);
                self.write_heads(slots, |at| values.is_null(at), values.null_count() > 0, context);
                if let Form::Fixed(form) = &self.form {
                    let records = Records { slots, offset: self.offset };
                    form.layout.scatter(&mut context.table.rows, records, &values);
                }
            }
            Staged::Boxed { values } => {
                self.copy_owed(slots.iter().copied(), context);
                self.write_heads(slots, |at| values[at].is_none(), true, context);
                for (slot, value) in slots.iter().zip(values) {
                    self.set_cell(*slot, value.unwrap_or_default());
                }
            }
        }
    }

    fn write_heads(&self, slots: &[Slot], deleted: impl Fn(usize) -> bool, any_deleted: bool, context: &mut Context<'_>) {
        let (has_time, has_disk) = (self.descriptor.ttl.is_some(), context.disk.is_some());
        let refreshed = context.now.unwrap_or(NEVER_REFRESHED) as u64;
        let changed = KNOWN | CHANGED | u64::from(context.generations.current()) << 32;
        for (at, &slot) in slots.iter().enumerate() {
            let change = if has_disk { self.head_of_change(self.head(context.table, slot), context) } else { changed };
            if any_deleted && deleted(at) {
                self.write_deleted(slot, change, context);
                continue;
            }
            let row = context.table.rows.row_mut(slot.0);
            row[self.offset] = change | PRESENT;
            if has_time {
                row[self.offset + 1] = refreshed;
            }
        }
    }

    /// A value that the disk never had leaves no trace.
    fn write_deleted(&self, slot: Slot, change: u64, context: &mut Context<'_>) {
        let record = self.record_mut(context.table, slot);
        record.fill(0);
        if change & STORED != 0 {
            record[0] = change;
        } else {
            record[0] = KNOWN;
            context.table.notice_idle(slot);
        }
    }

    /// Deletes values that are over.
    pub fn delete_over(&mut self, ttl: Ttl, slots: &[Slot], context: &mut Context<'_>) {
        let over = |slot: &Slot| {
            let record = self.record(context.table, *slot);
            record[0] & PRESENT != 0 && is_over(ttl, record[1] as i64, context.now)
        };
        let over: Vec<Slot> = slots.iter().copied().filter(over).collect();
        self.delete(&over, context);
    }

    fn delete(&mut self, slots: &[Slot], context: &mut Context<'_>) {
        self.copy_owed(slots.iter().copied(), context);
        for &slot in slots {
            let change = self.head_of_change(self.head(context.table, slot), context);
            self.write_deleted(slot, change, context);
            self.set_cell(slot, Box::default());
        }
    }

    /// Before a change: entries that a snapshot has yet to see are copied for it.
    fn copy_owed(&self, slots: impl Iterator<Item = Slot>, context: &mut Context<'_>) {
        let Some(first) = context.generations.first_ahead(self.part) else { return };
        let copies = self.copy(slots.filter(|slot| slot.0 >= first), context.table, context.generations);
        context.generations.keep_copies(copies);
    }

    /// Copies those of the records that are owed; those that cannot be copied as they are, or have no room, are given as entries.
    fn copy(&self, slots: impl Iterator<Item = Slot>, table: &KeyTable, generations: &mut Generations) -> Vec<StoredEntry> {
        let old = generations.old();
        let owed = slots.filter(|&slot| {
            let head = self.head(table, slot);
            head & CHANGED != 0 && old.contains(&generation(head))
        });
        let records = match &self.form {
            Form::Fixed(form) => generations.records(self.part, form),
            Form::Boxed { .. } => None,
        };
        let Some(records) = records else { return self.entries(&owed.collect::<Vec<_>>(), table) };
        let mut others = Vec::new();
        for slot in owed {
            match table.inline_words(slot) {
                Some(key) => records.push(key, self.record(table, slot)),
                None => others.push(slot),
            }
        }
        self.entries(&others, table)
    }

    /// Some entries of the snapshot under way from a slot on, and where to go on; none: that was all.
    pub fn owed(&self, from: &Cursor, limit: usize, table: &KeyTable, generations: &mut Generations) -> (Vec<StoredEntry>, Option<Cursor>) {
        let slots = table.slots() as u32;
        let (mut next, mut entries, mut bytes) = (from.slot, Vec::new(), 0);
        let end = slots.min(next.saturating_add(u32::try_from(limit).unwrap_or(u32::MAX)));
        while next < end && bytes < SLICE_BYTES {
            let chunk = next..end.min(next + OWED_TOGETHER);
            next = chunk.end;
            let of_chunk = self.copy(chunk.map(Slot).filter(|slot| table.is_used(slot.0)), table, generations);
            bytes += of_chunk.iter().map(StoredEntry::len).sum::<usize>();
            entries.extend(of_chunk);
        }
        (entries, (next < slots).then_some(Cursor { part: self.part, key: Vec::new(), slot: next }))
    }

    /// Takes in values of the disk below this store for slots of which memory knows nothing.
    pub fn take_in_unknown(&mut self, mut found: Vec<(Slot, Vec<u8>)>, table: &mut KeyTable) -> Result<(), Error> {
        found.retain(|(slot, _)| self.head(table, *slot) & KNOWN == 0);
        self.take_in(&found, table)
    }

    /// The disk has nothing that memory does not know.
    pub fn know_all(&self, table: &mut KeyTable) {
        for slot in (0..table.slots() as u32).map(Slot).filter(|slot| table.rows.row(slot.0)[self.offset] & KNOWN == 0).collect::<Vec<_>>()
        {
            if table.is_used(slot.0) {
                self.record_mut(table, slot)[0] |= KNOWN;
            }
        }
    }

    /// Takes in values of a snapshot, as they stood on disk: the disk below this store does not have them.
    pub fn take_in_changed(&mut self, found: &[(Slot, Vec<u8>)], context: &mut Context<'_>) -> Result<(), Error> {
        self.take_in(found, context.table)?;
        let changed = CHANGED | u64::from(context.generations.current()) << 32;
        for (slot, _) in found {
            let head = &mut self.record_mut(context.table, *slot)[0];
            *head = *head & !STORED | changed;
        }
        Ok(())
    }

    /// Whether memory is newer than the disk.
    pub fn is_unsaved(&self, slot: Slot, table: &KeyTable, generations: &Generations) -> bool {
        let head = self.head(table, slot);
        head & CHANGED != 0 && !generations.is_durable(generation(head))
    }

    /// Whether the key may leave memory now.
    pub fn may_leave(&self, slot: Slot, table: &KeyTable, generations: &Generations) -> bool {
        let head = self.head(table, slot);
        head & CHANGED == 0 || generations.may_leave(generation(head))
    }

    /// The records as they shall stand on disk.
    pub fn entries(&self, slots: &[Slot], table: &KeyTable) -> Vec<StoredEntry> {
        if slots.is_empty() {
            return Vec::new();
        }
        let key = |slot: Slot| self.disk_key(slot, table).into();
        let cells = match &self.form {
            Form::Fixed(form) => {
                let mut entries = Vec::with_capacity(slots.len());
                form.encode(&table.rows, Records { slots, offset: self.offset }, |at, value| {
                    entries.push(StoredEntry { key: key(slots[at]), value: value.map(Box::from) });
                });
                return entries;
            }
            Form::Boxed { cells, .. } => cells,
        };
        let mut value = Vec::new();
        let entry = |&slot: &Slot| {
            let record = self.record(table, slot);
            let stored = (record[0] & PRESENT != 0).then(|| {
                value.clear();
                row::start_form(self.descriptor.ttl.map(|_| record[1] as i64), &mut value);
                value.extend_from_slice(&cells[slot.0 as usize]);
                Box::from(&value[..])
            });
            StoredEntry { key: key(slot), value: stored }
        };
        slots.iter().map(entry).collect()
    }

    /// After writing to disk: memory and disk agree.
    pub fn mark_saved(&self, slot: Slot, table: &mut KeyTable) {
        let head = &mut self.record_mut(table, slot)[0];
        *head = *head & !(CHANGED | STORED) | if *head & PRESENT != 0 { STORED } else { 0 };
    }

    /// The key leaves the table.
    pub fn forget(&mut self, slot: Slot) {
        self.set_cell(slot, Box::default());
    }

    /// Visits all values, page by page, those in memory first; not those that are over.
    pub fn read_all(
        &self,
        reading: &Reading<'_>,
        mut visit: impl FnMut(EncodedKeys, ArrayRef) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let is_over = |refreshed: Option<i64>| {
            self.descriptor.ttl.zip(refreshed).is_some_and(|(ttl, refreshed)| is_over(ttl, refreshed, reading.now))
        };
        let table = reading.table;
        let mut slots = match reading.only {
            Some((key, group)) => table.find(key, group).filter(|slot| self.head(table, *slot) & PRESENT != 0).into_iter().collect(),
            None => self.present(table),
        };
        slots.retain(|&slot| !is_over(self.descriptor.ttl.map(|_| self.record(table, slot)[1] as i64)));
        for slots in slots.chunks(PAGE) {
            if visit(table.keys(slots), self.read(slots, table)?)?.is_break() {
                return Ok(());
            }
        }
        let Some(disk) = reading.disk else { return Ok(()) };
        let mut from = self.prefix.to_be_bytes().to_vec();
        if let Some((key, group)) = reading.only {
            from.extend_from_slice(&group.0.to_be_bytes());
            from.extend_from_slice(key);
        }
        let (mut keys, mut decoder) = (EncodedKeys::default(), self.decoder()?);
        let mut result = Ok(ControlFlow::Continue(()));
        disk.scan(&from, &successor(&from), false, |stored_key, stored| {
            result = self.read_entry(&stored_key[2..], stored, table, &is_over, (&mut keys, &mut decoder));
            if result.is_ok() && keys.len() == PAGE {
                let page = decoder.finish().map_err(|damage| self.damaged(&damage));
                result = page.and_then(|values| visit(std::mem::take(&mut keys), values));
            }
            if matches!(result, Ok(ControlFlow::Continue(()))) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if result?.is_continue() && !keys.is_empty() {
            // It was the last page either way.
            let _ = visit(keys, decoder.finish().map_err(|damage| self.damaged(&damage))?)?;
        }
        Ok(())
    }

    /// Adds an entry of the disk to a page, if memory does not know better.
    fn read_entry(
        &self,
        entry: &[u8],
        stored: &[u8],
        table: &KeyTable,
        is_over: &impl Fn(Option<i64>) -> bool,
        (keys, decoder): (&mut EncodedKeys, &mut RowDecoder),
    ) -> Result<ControlFlow<()>, Error> {
        let (group, key) = entry.split_first_chunk::<2>().ok_or_else(|| self.damaged(&"a key is too short"))?;
        let group = KeyGroup(u16::from_be_bytes(*group));
        let stored = split_stored(stored).ok_or_else(|| self.damaged(&"its head"))?;
        let is_known = table.find(key, group).is_some_and(|slot| self.head(table, slot) & KNOWN != 0);
        if !is_known && !is_over(stored.refreshed) {
            keys.push_in_group(key, group);
            decoder.read(stored.version, stored.body).map_err(|damage| self.damaged(&damage))?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Whether the records of `before` can be taken over as they are.
    fn has_records_of(&self, before: &Self) -> bool {
        self.descriptor.value_type == before.descriptor.value_type && self.descriptor.ttl.is_some() == before.descriptor.ttl.is_some()
    }

    /// The slots with a value in memory.
    pub fn present(&self, table: &KeyTable) -> Vec<Slot> {
        let is_present = |slot: &Slot| table.is_used(slot.0) && self.head(table, *slot) & PRESENT != 0;
        (0..table.slots() as u32).map(Slot).filter(is_present).collect()
    }
}

/// Gives the rows of the table the shape of newly declared states. `pairs`: each old state with the new one that continues it.
pub(crate) fn relayout(table: &mut KeyTable, record_words: usize, pairs: &mut [(ValueState, &mut ValueState)]) -> Result<(), Error> {
    let mut converted = Vec::new();
    for (old, new) in pairs.iter() {
        let slots = if new.has_records_of(old) { Vec::new() } else { old.present(table) };
        converted.push(slots.iter().copied().zip(old.entries(&slots, table)).collect::<Vec<_>>());
    }
    table.relayout(record_words, |_, before, after| {
        for (old, new) in pairs.iter() {
            // Of a record of another shape only what is known of it, without its nulls.
            let (words, mask) = if new.has_records_of(old) { (old.words, u64::MAX) } else { (1, !NULL_BITS) };
            after[new.offset..new.offset + words].copy_from_slice(&before[old.offset..old.offset + words]);
            after[new.offset] &= mask;
        }
    });
    for ((old, new), converted) in pairs.iter_mut().zip(converted) {
        if new.has_records_of(old) {
            if let (Form::Boxed { .. }, Form::Boxed { .. }) = (&old.form, &new.form) {
                std::mem::swap(&mut old.form, &mut new.form);
            }
            continue;
        }
        new.reserve(table.slots());
        let heads: Vec<(Slot, u64)> = converted.iter().map(|(slot, _)| (*slot, new.head(table, *slot))).collect();
        let found: Vec<(Slot, Vec<u8>)> =
            converted.into_iter().map(|(slot, entry)| (slot, entry.value.unwrap_or_default().into())).collect();
        new.take_in(&found, table)?;
        for (slot, head) in heads {
            let new_head = &mut new.record_mut(table, slot)[0];
            *new_head = *new_head & NULL_BITS | head;
        }
    }
    Ok(())
}

fn generation(head: u64) -> u32 {
    (head >> 32) as u32
}

/// # Errors
/// The encoded value is larger than the limit.
pub(crate) fn check_size(state: &str, bytes: usize, hash: impl FnOnce() -> u64) -> Result<(), Error> {
    if bytes > VALUE_BYTES_MAX {
        return Err(Error::ValueTooLarge { state: state.into(), hash: hash(), bytes, limit: VALUE_BYTES_MAX });
    }
    Ok(())
}
