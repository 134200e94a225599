//! Answers of a guest as bytes of its memory: the canonical ABI, as far as the contract uses it.
//!
//! A value is stored at an address; what it points to is put behind everything stored before. See "Canonical ABI" of the component model.

/// The start of a guest's memory, filled front to back.
pub struct Memory {
    pub bytes: Vec<u8>,
}

/// Addresses below are left to the guest's code.
pub const BASE: u32 = 1024;

impl Default for Memory {
    fn default() -> Self {
        Self { bytes: vec![0; BASE as usize] }
    }
}

impl Memory {
    pub fn allocate(&mut self, size: u32, align: u32) -> u32 {
        let at = (self.bytes.len() as u32).next_multiple_of(align);
        self.bytes.resize((at + size) as usize, 0);
        at
    }

    pub fn set(&mut self, at: u32, bytes: &[u8]) {
        self.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    /// The value, somewhere; its address.
    pub fn put<V: Value>(&mut self, value: &V) -> u32 {
        let at = self.allocate(V::SIZE, V::ALIGN);
        value.store(self, at);
        at
    }
}

/// A value with a layout.
pub trait Value {
    const SIZE: u32;
    const ALIGN: u32;
    fn store(&self, memory: &mut Memory, at: u32);
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const SIZE: u32 = size_of::<$type>() as u32;
            const ALIGN: u32 = size_of::<$type>() as u32;
            fn store(&self, memory: &mut Memory, at: u32) {
                memory.set(at, &self.to_le_bytes());
            }
        }
    )*};
}
number!(u8, u32, u64, i64);

impl Value for bool {
    const SIZE: u32 = 1;
    const ALIGN: u32 = 1;
    fn store(&self, memory: &mut Memory, at: u32) {
        u8::from(*self).store(memory, at);
    }
}

impl Value for () {
    const SIZE: u32 = 0;
    const ALIGN: u32 = 1;
    fn store(&self, _memory: &mut Memory, _at: u32) {}
}

impl Value for String {
    const SIZE: u32 = 8;
    const ALIGN: u32 = 4;
    fn store(&self, memory: &mut Memory, at: u32) {
        self.as_bytes().to_vec().store(memory, at);
    }
}

impl<V: Value> Value for Vec<V> {
    const SIZE: u32 = 8;
    const ALIGN: u32 = 4;
    fn store(&self, memory: &mut Memory, at: u32) {
        let items = memory.allocate(V::SIZE * self.len() as u32, V::ALIGN);
        for (index, item) in self.iter().enumerate() {
            item.store(memory, items + V::SIZE * index as u32);
        }
        items.store(memory, at);
        (self.len() as u32).store(memory, at + 4);
    }
}

/// A list that says to lie at an address and to have a length, whatever is there.
#[derive(Clone, Copy)]
pub struct RawList(pub u32, pub u32);

impl Value for RawList {
    const SIZE: u32 = 8;
    const ALIGN: u32 = 4;
    fn store(&self, memory: &mut Memory, at: u32) {
        self.0.store(memory, at);
        self.1.store(memory, at + 4);
    }
}

const fn max(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

impl<V: Value> Value for Option<V> {
    const SIZE: u32 = (V::ALIGN + V::SIZE).next_multiple_of(V::ALIGN);
    const ALIGN: u32 = V::ALIGN;
    fn store(&self, memory: &mut Memory, at: u32) {
        u8::from(self.is_some()).store(memory, at);
        if let Some(value) = self {
            value.store(memory, at + V::ALIGN);
        }
    }
}

impl<T: Value, E: Value> Value for Result<T, E> {
    const SIZE: u32 = (max(T::ALIGN, E::ALIGN) + max(T::SIZE, E::SIZE)).next_multiple_of(max(T::ALIGN, E::ALIGN));
    const ALIGN: u32 = max(T::ALIGN, E::ALIGN);
    fn store(&self, memory: &mut Memory, at: u32) {
        u8::from(self.is_err()).store(memory, at);
        match self {
            Ok(value) => value.store(memory, at + Self::ALIGN),
            Err(error) => error.store(memory, at + Self::ALIGN),
        }
    }
}

/// Declares a record of the contract with its layout.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name { $(pub $field: $type),* }

        impl $crate::abi::Value for $name {
            const ALIGN: u32 = { let mut align = 1; $(if <$type as $crate::abi::Value>::ALIGN > align { align = <$type as $crate::abi::Value>::ALIGN; })* align };
            const SIZE: u32 = {
                let mut size: u32 = 0;
                $(size = size.next_multiple_of(<$type as $crate::abi::Value>::ALIGN) + <$type as $crate::abi::Value>::SIZE;)*
                size.next_multiple_of(Self::ALIGN)
            };
            #[allow(unused_assignments, reason = "the last field has none after it")]
            fn store(&self, memory: &mut $crate::abi::Memory, at: u32) {
                let mut next = at;
                $(
                    next = next.next_multiple_of(<$type as $crate::abi::Value>::ALIGN);
                    $crate::abi::Value::store(&self.$field, memory, next);
                    next += <$type as $crate::abi::Value>::SIZE;
                )*
            }
        }
    };
}
